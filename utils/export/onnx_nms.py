"""Non-maximum suppression as part of an ONNX graph, equal to :func:`utils.core.nms.non_max_suppression`."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from torch import Tensor

from utils.config.export_options import ExportOptions

RAW_OUTPUT = "output"
_CLASS_STEP_PX, _MIN_SIDE_PX = 7680.0, 2.0  # those of utils.core.nms
_ALL = 1_000_000

# Only operators whose form is the same from opset 11 to the newest: no Split, Squeeze, or reduction along an axis.
_GRAPH = """
<ir_version: {ir}, opset_import: ["" : {opset}]>
nms (float[nms_b, nms_n, {width}] output) => (float[nms_b, {rows}, 6] detections)
<
  int64[1] nms_0 = {{0}}, int64[1] nms_1 = {{1}}, int64[1] nms_2 = {{2}}, int64[1] nms_4 = {{4}},
  int64[1] nms_5 = {{5}}, int64[1] nms_w = {{{width}}}, int64[2] nms_columns = {{0, 2}}, int64[1] nms_rows = {{{rows}}},
  int64[1] nms_most = {{{most}}}, float[1] nms_conf = {{{conf}}}, float[1] nms_iou = {{{iou}}},
  float nms_zero = {{0.0}}, float nms_half = {{0.5}}, float nms_one = {{1.0}}, float nms_least = {{{least}}},
  float nms_step = {{{step}}},
  int64[6] nms_margin = {{0, 0, 0, 0, {rows}, 0}}, int64 nms_along = {{1}}, float nms_each = {{{each}}},
  float[1, 1, {classes}] nms_classes = {{{class_list}}}, float[{classes}, 1] nms_sum = {{{ones}}}
>
{{
  nms_xy = Slice(output, nms_0, nms_2, nms_2)
  nms_wh = Slice(output, nms_2, nms_4, nms_2)
  nms_object = Slice(output, nms_4, nms_5, nms_2)
  nms_scores = Slice(output, nms_5, nms_w, nms_2)
  nms_reach = Mul(nms_wh, nms_half)
  nms_low = Sub(nms_xy, nms_reach)
  nms_high = Add(nms_xy, nms_reach)
  nms_boxes = Concat<axis = 2>(nms_low, nms_high)
  nms_products = Mul(nms_scores, nms_object)
  nms_best, nms_class = TopK<axis = 2>(nms_products, nms_1)
  nms_kind = Cast<to = 1>(nms_class)

  nms_width = Slice(nms_wh, nms_0, nms_1, nms_2)
  nms_height = Slice(nms_wh, nms_1, nms_2, nms_2)
  nms_side = Min(nms_width, nms_height)
  nms_thin = Less(nms_side, nms_least)
  nms_thick = Not(nms_thin)
  nms_object_passes = Greater(nms_object, nms_conf)
  nms_best_passes = Greater(nms_best, nms_conf)
  nms_both = And(nms_object_passes, nms_best_passes)
  nms_passes = And(nms_both, nms_thick)
  nms_score = Where(nms_passes, nms_best, nms_zero)

  {shift}
  nms_score_row = Transpose<perm = [0, 2, 1]>(nms_score)
  nms_chosen = NonMaxSuppression(nms_apart, nms_score_row, nms_most, nms_iou, nms_conf)
  nms_places = Gather<axis = 1>(nms_chosen, nms_columns)
  nms_chosen_scores = GatherND(nms_score, nms_places)
  nms_none = Mul(nms_score, nms_zero)
  nms_kept = ScatterND(nms_none, nms_places, nms_chosen_scores)

  {limit}
  nms_row = Concat<axis = 2>(nms_boxes, nms_best, nms_kind)
  nms_padded = Pad(nms_limited, nms_margin)
  nms_padded_rows = Pad(nms_row, nms_margin)
  nms_top, nms_index = TopK<axis = 1>(nms_padded, nms_rows)
  nms_indices = Concat<axis = 2>(nms_index, nms_index, nms_index, nms_index, nms_index, nms_index)
  nms_found = GatherElements<axis = 1>(nms_padded_rows, nms_indices)
  nms_used = Greater(nms_top, nms_zero)
  nms_factor = Cast<to = 1>(nms_used)
  detections = Mul(nms_found, nms_factor)
}}
"""
# Each class is moved to its own area, so that boxes of different classes never meet.
_APART = """
  nms_right = ReduceMax<keepdims = 0>(nms_boxes)
  nms_left = ReduceMin<keepdims = 0>(nms_boxes)
  nms_span = Sub(nms_right, nms_left)
  nms_span_and_one = Add(nms_span, nms_one)
  nms_distance = Max(nms_span_and_one, nms_step)
  nms_offset = Mul(nms_kind, nms_distance)
  nms_apart = Add(nms_boxes, nms_offset)
"""
_TOGETHER = "nms_apart = Identity(nms_boxes)"
# A box goes when as many better ones of its class are there as one class may have.
_LIMITED = """
  nms_shape = Shape(nms_kept)
  nms_number = Slice(nms_shape, nms_1, nms_2, nms_0)
  nms_falling, nms_order = TopK<axis = 1>(nms_kept, nms_number)
  nms_falling_kind = GatherElements<axis = 1>(nms_kind, nms_order)
  nms_is_of = Equal(nms_falling_kind, nms_classes)
  nms_is = Cast<to = 1>(nms_is_of)
  nms_upto = CumSum(nms_is, nms_along)
  nms_own = Mul(nms_upto, nms_is)
  nms_rank = MatMul(nms_own, nms_sum)
  nms_over = Greater(nms_rank, nms_each)
  nms_under = Not(nms_over)
  nms_share = Cast<to = 1>(nms_under)
  nms_left_over = Mul(nms_falling, nms_share)
  nms_limited = ScatterElements<axis = 1>(nms_none, nms_order, nms_left_over)
"""
_UNLIMITED = "nms_limited = Identity(nms_kept)"


def with_nms(model: Any, classes: int, options: ExportOptions) -> Any:
    """``model``, whose output are candidates [B, N, classes + 5], followed by NMS.

    The new output ``detections`` is [B, topk_all, 6]: x1 y1 x2 y2 confidence class, best first, unused rows zero.
    """
    import onnx

    opset = next(entry.version for entry in model.opset_import if entry.domain in ("", "ai.onnx"))
    limited = options.topk_per_class < options.topk_all
    text = _GRAPH.format(
        ir=model.ir_version,
        opset=opset,
        width=classes + 5,
        rows=options.topk_all,
        classes=classes,
        most=_ALL if limited else options.topk_all,
        conf=_number(options.conf_thres),
        iou=_number(options.iou_thres),
        least=_MIN_SIDE_PX,
        step=_CLASS_STEP_PX,
        each=_number(options.topk_per_class),
        class_list=", ".join(_number(index) for index in range(classes)),
        ones=", ".join(["1.0"] * classes),
        shift=_TOGETHER if options.agnostic_nms else _APART,
        limit=_LIMITED if limited else _UNLIMITED,
    )
    tail = onnx.parser.parse_model(text)
    joined = onnx.compose.merge_models(model, tail, io_map=[(RAW_OUTPUT, RAW_OUTPUT)])
    used = {name for node in joined.graph.node for name in node.input}
    for tensor in [tensor for tensor in joined.graph.initializer if tensor.name not in used]:
        joined.graph.initializer.remove(tensor)
    free = model.graph.input[0].type.tensor_type.shape.dim[0]
    joined.graph.output[0].type.tensor_type.shape.dim[0].CopyFrom(free)
    return joined


def _number(value: float) -> str:
    return repr(float(value))


def with_raw(model: Any) -> Any:
    """A copy that also returns the candidates, so that the result of NMS can be checked."""
    import onnx

    copy = onnx.ModelProto()
    copy.CopyFrom(model)
    copy.graph.output.append(onnx.helper.make_tensor_value_info(RAW_OUTPUT, onnx.TensorProto.FLOAT, None))
    return copy


def run_onnx(model: Any, images: Tensor) -> list[np.ndarray]:
    """All outputs of a model in memory, by ONNX Runtime on the CPU."""
    import onnxruntime

    settings = onnxruntime.SessionOptions()
    settings.log_severity_level = 4
    settings.intra_op_num_threads = torch.get_num_threads()
    session = onnxruntime.InferenceSession(model.SerializeToString(), settings, providers=["CPUExecutionProvider"])
    outputs: list[np.ndarray] = session.run(None, {session.get_inputs()[0].name: images.cpu().numpy()})
    return outputs
