"""Labels in the formats of COCO and VOC: read as they are, and written."""
