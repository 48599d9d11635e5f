"""Default thresholds of NMS, for options as well as for the code. Importing it loads no torch."""

# detect.py, the web page, AutoShape, exported files with NMS, and val.py --task speed
CONF_THRES, IOU_THRES, MAX_DET = 0.25, 0.45, 1000
# evaluation, where precision is computed down to a low confidence
EVAL_CONF_THRES, EVAL_IOU_THRES, EVAL_MAX_DET = 0.001, 0.6, 300
