"""Labels in the formats of COCO, VOC, LabelMe and CVAT: read as they are; COCO and VOC are written as well."""
