"""`edgecnn quantize`: `convert` with a recipe of integers, which ends with where the error comes from."""

from edgecnn.commands.convert import conversion_command

QUANTIZE = """Quantize MODEL and write it as TFLite, ONNX and OpenVINO artifacts with the same integers.

Ranges are calibrated once, on the images of --data. The report says what each repair gained, how near the integers are
to the float network, and which layers lose most and why. Each artifact is held in its runtime against the same integers
in NumPy, and nothing is handed over where one computes something else.
"""

quantize = conversion_command("quantize", QUANTIZE, recipe="static_w8_a8")
