"""Images in: reading, preprocessing by contract, filters, photographs to measure on."""
