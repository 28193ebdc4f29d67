"""EfficientNet-Lite: EfficientNet for integer accelerators, without squeeze-excite and with ReLU6 for swish.

The stages are those of EfficientNet (efficientnet.py); stem, head and the repeats of the first and last stage keep
their size, so that small networks stay small. Pixels enter as (p - 127) / 128, for better quantization.

Source: tensorflow/tpu, models/official/efficientnet/lite: README.md and efficientnet_lite_builder.py.
"""

from edgecnn.models.efficientnet import Scale, Style, published
from edgecnn.models.preprocessing import LITE
from edgecnn.ops import ReLU6

SCALES = (  # efficientnet_lite_builder.py, efficientnet_lite_params
    Scale(name="efficientnet_lite0", width=1.0, depth=1.0, resolution=224, dropout=0.2),
    Scale(name="efficientnet_lite1", width=1.0, depth=1.1, resolution=240, dropout=0.2),
    Scale(name="efficientnet_lite2", width=1.1, depth=1.2, resolution=260, dropout=0.3),
    Scale(name="efficientnet_lite3", width=1.2, depth=1.4, resolution=280, dropout=0.3),
    Scale(name="efficientnet_lite4", width=1.4, depth=1.8, resolution=300, dropout=0.3),
)
STYLE = Style(activation=ReLU6(), squeeze_ratio=0, is_fully_scaled=False, pixels=LITE)

(efficientnet_lite0, efficientnet_lite1, efficientnet_lite2, efficientnet_lite3, efficientnet_lite4) = published(
    SCALES, STYLE
)
