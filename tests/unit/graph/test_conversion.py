"""The converter's rules, one tiny model each."""

from __future__ import annotations

import onnx
import onnx_ir as ir
import pytest

from topsideas.errors import EngineError, ModelError
from topsideas.graph.conversion import Conversion, Converter, convert
from topsideas.graph.conversion_types import check_types
from topsideas.graph.loading import Model, load_model
from topsideas.graph.ops import op_id
from topsideas.plan import PrecisionPlan
from topsideas.precision import BF16, Numerics, Overflow, Subnormals

FLOAT, FP16 = ir.DataType.FLOAT, ir.DataType.FLOAT16


def model_of(text: str, opset: int = 17, ir_version: int = 10) -> Model:
    opsets = f'"": {opset}, "com.microsoft": 1, "acme": 1'
    header = f"<ir_version: {ir_version}, opset_import: [{opsets}]> g "
    return load_model(onnx.parser.parse_model(header + text))


def converted(source: Model, kept: set[int] | None = None, **numerics: object) -> Conversion:
    conversion = convert(source, PrecisionPlan.of(kept or set()), Numerics(**numerics))
    proto = ir.to_proto(conversion.model)
    onnx.checker.check_model(proto, full_check=True)
    return conversion


def values(conversion: Conversion) -> dict[str, ir.Value]:
    """All values by name, bodies included."""
    found = {}
    for graph in conversion.model.graphs():
        for value in (*graph.inputs, *graph.initializers.values()):
            found[value.name] = value
        found |= {v.name: v for node in graph for v in node.outputs}
    return found


def types(conversion: Conversion) -> dict[str, ir.DataType]:
    return {name: value.dtype for name, value in values(conversion).items()}


def inputs_of(conversion: Conversion, identity: int) -> list[str | None]:
    """Names of what an op reads."""
    nodes = [n for graph in conversion.model.graphs() for n in graph if op_id(n) == identity]
    return [v.name if v is not None else None for v in nodes[0].inputs]


def op_types(conversion: Conversion) -> list[str]:
    return [node.op_type for node in conversion.model.graph]


CHAIN = """(float[4] x) => (float[4] y) <float[4] w = {1, 2, 3, 4}> {
    a = Mul (x, w)
    b = Exp (a)
    c = Neg (a)
    y = Add (b, c)
}"""


class TestCasts:
    def test_all_low_casts_only_at_the_boundary(self) -> None:
        conversion = converted(model_of(CHAIN))
        assert conversion.casts == 2
        assert types(conversion) == {
            "x": FLOAT,
            "x_fp16": FP16,
            "w": FP16,
            "a": FP16,
            "b": FP16,
            "c": FP16,
            "y_fp16": FP16,
            "y": FLOAT,
        }

    def test_all_kept_changes_nothing(self) -> None:
        source = model_of(CHAIN)
        conversion = converted(source, {0, 1, 2, 3})
        assert conversion.casts == 0
        assert ir.to_proto(conversion.model) == ir.to_proto(source.graph_model)

    def test_one_cast_serves_all_readers(self) -> None:
        conversion = converted(model_of(CHAIN), {1, 2, 3})  # a is low, b, c, y are kept
        assert inputs_of(conversion, 1) == inputs_of(conversion, 2) == ["a_fp32"]
        conversion = converted(model_of(CHAIN), {0})  # a is kept, two low ops read it
        assert inputs_of(conversion, 1) == inputs_of(conversion, 2) == ["a_fp16"]

    def test_one_tensor_read_twice_by_one_op(self) -> None:
        conversion = converted(model_of("(float[4] x) => (float[4] y) { y = Mul (x, x) }"))
        assert inputs_of(conversion, 0) == ["x_fp16", "x_fp16"]
        assert conversion.casts == 2

    def test_shape_is_read_without_a_cast(self) -> None:
        source = model_of("""(float[4] x) => (int64[1] n, float[4] y) {
            y = Exp (x)
            a = Exp (y)
            n = Shape (a)
        }""")
        assert inputs_of(converted(source), 2) == ["a"]

    def test_scales_of_resize_stay_float32(self) -> None:
        source = model_of("""(float[1, 1, 2, 2] x) => (float[N, C, H, W] y)
            <float[4] scales = {1, 1, 2, 2}> { y = Resize (x, , scales) }""")
        conversion = converted(source)
        assert inputs_of(conversion, 0) == ["x_fp16", None, "scales"]
        assert types(conversion)["scales"] == FLOAT

    def test_empty_optional_inputs_and_outputs(self) -> None:
        source = model_of("""(float[1, 2, 3] x, float[1, 16, 3] w, float[1, 16, 4] r, float m)
            => (float[1, 2, 4] h) {
                c = Clip (x, , m)
                a, h, b = LSTM <hidden_size = 4> (c, w, r)
            }""")
        proto = ir.to_proto(source.graph_model)
        del proto.graph.value_info[:]
        proto.graph.node[1].output[:] = ["", "h", ""]
        conversion = converted(load_model(proto))
        assert inputs_of(conversion, 0) == ["x_fp16", None, "m_fp16"]
        assert [o.name for o in conversion.model.graph[-2].outputs] == ["", "h_fp16", ""]

    def test_source_model_is_unchanged(self) -> None:
        source = model_of(CHAIN)
        before = ir.to_proto(source.graph_model).SerializeToString(deterministic=True)
        converter = Converter(source, Numerics())
        first, _, again = (converter.convert(PrecisionPlan.of(k)) for k in ({1}, {0}, {1}))
        assert ir.to_proto(first.model) == ir.to_proto(again.model)
        assert ir.to_proto(source.graph_model).SerializeToString(deterministic=True) == before


class TestOutputs:
    def test_low_output_read_inside_too(self) -> None:
        source = model_of("(float[4] x) => (float[4] y, float[4] z) { y = Exp (x) z = Neg (y) }")
        conversion = converted(source)
        assert inputs_of(conversion, 1) == ["y_fp16"]
        conversion = converted(source, {1})
        assert inputs_of(conversion, 1) == ["y"]  # the output's own cast
        assert conversion.casts == 2

    def test_input_and_initializer_as_outputs(self) -> None:
        source = model_of("""(float[4] x) => (float[4] y, float[4] x, float[4] w)
            <float[4] w = {1, 2, 3, 4}> { y = Mul (x, w) }""")
        conversion = converted(source)
        assert inputs_of(conversion, 0) == ["x_fp16", "w_fp16"]
        assert types(conversion)["w"] == FLOAT

    def test_declared_shape_survives_a_void_cast(self) -> None:
        source = model_of("(float[N] x) => (float[4] y) { a = Exp (x) y = Cast <to = 1> (a) }")
        conversion = converted(source)
        assert values(conversion)["y"].shape == [4]
        assert op_types(conversion) == ["Cast", "Exp", "Cast"]

    def test_what_outputs_declare_is_no_shape_of_inner_values(self) -> None:
        """One symbol for sizes that differ is harmless there, and inside lets buffers be reused
        that are too small: runtimes plan memory by it."""
        source = model_of("""(float[N] x) => (float[L] a, float[L] b, float[L] c) {
            a = Neg (x) b = Concat <axis = 0> (a, x) c = Exp (b)
        }""")
        found = values(converted(source, {1}))
        assert [found[name].shape for name in ("a_fp16", "b_fp16", "c_fp16")] == [None, None, None]
        assert [found[name].shape for name in "abc"] == [["L"], ["L"], ["L"]]


class TestNames:
    def test_hostile_names(self) -> None:
        source = model_of("""(float[4] x, float[4] x_fp16) => (float[4] y, float[4] y_fp16) {
            [same] y = Mul (x, x_fp16)
            [same] y_fp16 = Add (x, y)
        }""")
        conversion = converted(source)
        assert inputs_of(conversion, 0) == ["x_fp16_1", "x_fp16_fp16"]
        names = [v.name for v in (*conversion.model.graph.inputs, *conversion.model.graph.outputs)]
        assert names == ["x", "x_fp16", "y", "y_fp16"]
        inserted = [node.name for node in conversion.model.graph if op_id(node) == -1]
        assert len(set(inserted)) == len(inserted) == conversion.casts

    def test_bodies_that_repeat_each_others_names(self) -> None:
        branch = "b () => (float[4] p) { q = Exp (x) p = Neg (q) }"
        source = model_of(
            f"(float[4] x, bool c) => (float[4] y) {{ y = If (c) "
            f"<then_branch = {branch}, else_branch = {branch}> }}"
        )
        conversion = converted(source, {2, 3})
        names = [v.name for g in conversion.model.graphs() for n in g for v in n.outputs]
        inserted = [name for name in names if name.endswith(("_fp16", "_fp32"))]
        assert len(set(inserted)) == len(inserted)


class TestWeights:
    SHARED = """(float[4] x) => (float[4] y) <float[4] w = {1, 2, 3, 4}> {
        a = Mul (x, w)
        y = Add (a, w)
    }"""

    def test_shared_weight_is_stored_twice_only_if_both_read_it(self) -> None:
        source = model_of(self.SHARED)
        initializers = converted(source, {1}).model.graph.initializers
        assert {n: v.dtype for n, v in initializers.items()} == {"w": FLOAT, "w_fp16": FP16}
        assert converted(source).model.graph.initializers.keys() == {"w"}
        assert converted(source, {0, 1}).model.graph.initializers.keys() == {"w"}

    @pytest.mark.parametrize(
        "constant", ["value = float[4] {1, 2, 3, 4}", "value_floats = [1.0, 2.0, 3.0, 4.0]"]
    )
    def test_constant_nodes(self, constant: str) -> None:
        body = self.SHARED.replace("<float[4] w = {1, 2, 3, 4}>", "").replace(
            "a = ", f"w = Constant <{constant}> () a = "
        )
        source = model_of(body)
        assert op_types(converted(source)).count("Constant") == 1
        conversion = converted(source, {2})
        assert op_types(conversion).count("Constant") == 2
        assert (types(conversion)["w"], types(conversion)["w_fp16"]) == (FLOAT, FP16)

    def test_scalars(self) -> None:
        source = model_of("""(float[4] x) => (float[4] y) {
            k = Constant <value_float = 0.1> ()
            y = Mul (x, k)
        }""")
        weight = values(converted(source))["k"].producer().attributes["value"].as_tensor()
        assert (weight.dtype, weight.shape) == (FP16, ir.Shape([]))

    def test_initializer_of_a_body(self) -> None:
        source = model_of("""(float[4] x, bool c) => (float[4] y) {
            y = If (c) <
                then_branch = t () => (float[4] p) <float[4] v = {1, 2, 3, 4}> {
                    p = Mul (x, v)
                },
                else_branch = e () => (float[4] p) { p = Neg (x) }>
        }""")
        assert types(converted(source))["v"] == FP16

    def test_weight_that_is_an_input_stays_and_is_cast(self) -> None:
        source = model_of("""(float[4] x, float[4] w) => (float[4] y)
            <float[4] w = {1, 2, 3, 4}> { y = Mul (x, w) }""")
        conversion = converted(source)
        assert types(conversion)["w"] == FLOAT
        assert inputs_of(conversion, 0) == ["x_fp16", "w_fp16"]
        assert conversion.casts == 3
        assert "(w, ...)" in conversion.warnings[0]

    def test_before_ir_version_4_listed_weights_are_constants(self) -> None:
        source = model_of(
            """(float[4] x, float[4] w) => (float[4] y)
            <float[4] w = {1, 2, 3, 4}> { y = Mul (x, w) }""",
            opset=8,
            ir_version=3,
        )
        conversion = converted(source)
        assert conversion.model.ir_version == 4
        assert [v.name for v in conversion.model.graph.inputs] == ["x"]
        assert types(conversion)["w"] == FP16
        assert "IR version 3 lifted to 4" in conversion.warnings[0]

    def test_overflow_is_told_and_never_clipped(self) -> None:
        source = model_of("""(float[4] x) => (float[4] y)
            <float[4] w = {70000, 65519, -3.4e38, 1}> { y = Mul (x, w) }""")
        conversion = converted(source)
        stored = values(conversion)["w"].const_value.numpy().tolist()
        assert stored == [float("inf"), 65504, float("-inf"), 1]
        (warning,) = conversion.warnings
        assert warning.startswith("weight 'w': 2 of 4 values exceed fp16's largest 65504")
        assert "infinite" in warning

    def test_overflow_of_a_saturating_target(self) -> None:
        source = model_of("""(float[2] x) => (float[2] y)
            <float[2] w = {70000, 1}> { y = Mul (x, w) }""")
        conversion = converted(source, overflow=Overflow.SATURATE)
        assert values(conversion)["w"].const_value.numpy().tolist() == [65504, 1]
        assert "1 of 2 values" in conversion.warnings[0]
        assert "saturate" in conversion.warnings[0]
        assert set(op_types(conversion)) == {"Cast", "Mul"}

    def test_infinity_in_the_users_weight_is_no_overflow(self) -> None:
        source = model_of("(float[1] x) => (float[1] y) <float[1] w = {1}> { y = Add (x, w) }")
        weight = source.graph.initializers["w"]
        weight.const_value = ir.tensor([float("-inf")])
        assert not converted(source).warnings

    def test_flushed_subnormals(self) -> None:
        source = model_of("""(float[2] x) => (float[2] y)
            <float[2] w = {1e-6, 1}> { y = Mul (x, w) }""")
        conversion = converted(source, subnormals=Subnormals.FLUSH)
        assert values(conversion)["w"].const_value.numpy().tolist() == [0, 1]


class TestTypeAttributes:
    """Ops whose output type is an attribute, given or by default."""

    @pytest.mark.parametrize(
        ("expression", "opset"),
        [
            ("Cast <to = 1> (n)", 17),
            ("ConstantOfShape (n)", 17),
            ("ConstantOfShape <value = float[1] {0.1}> (n)", 17),
            ("EyeLike <dtype = 1> (m)", 17),
            ("RandomNormal <shape = [2]> ()", 17),
            ("RandomUniform <shape = [2], dtype = 1> ()", 17),
            ("RandomNormalLike <dtype = 1> (m)", 17),
            ("Bernoulli <dtype = 1> (d)", 17),
            ("HannWindow (k)", 17),
            ("BlackmanWindow <output_datatype = 1> (k)", 17),
            ("CastLike (n, x)", 17),
            ("DequantizeLinear <output_dtype = 1> (q, x0)", 23),
            ("DequantizeLinear (q, x0)", 21),
            ("RandomUniformLike (x)", 17),
            ("EyeLike (x2)", 17),
        ],
    )
    def test_output_becomes_low(self, expression: str, opset: int) -> None:
        source = model_of(
            f"""(float[2] x, float[2, 2] x2, float x0, int64[2] n, int64 k, int64[2, 2] m,
                double[2] d, int8[2] q) => (int64[R] s) {{
                y = {expression}
                s = Shape (y)
            }}""",
            opset=opset,
        )
        assert types(converted(source))["y"] == FP16
        assert types(converted(source, {0}))["y"] == FLOAT

    def test_statistics_of_layer_normalisation_stay_float32(self) -> None:
        source = model_of("""(float[2, 4] x) => (float[2, 4] y, float[2, 1] m)
            <float[4] s = {1, 2, 3, 4}> { y, m = LayerNormalization (x, s) }""")
        conversion = converted(source)
        assert conversion.casts == 2
        assert inputs_of(conversion, 0) == ["x_fp16", "s"]


class TestUsersCasts:
    TEXT = """(float[4] x) => (float[4] y) {
        a = Exp (x)
        h = Cast <to = 10> (a)
        t = Transpose (h)
        b = Cast <to = 1> (t)
        y = Mul (b, x)
    }"""

    def test_casts_between_equal_types_go(self) -> None:
        conversion = converted(model_of(self.TEXT))
        assert op_types(conversion) == ["Cast", "Exp", "Transpose", "Mul", "Cast"]

    def test_kept_casts_read_what_is_stored(self) -> None:
        conversion = converted(model_of(self.TEXT), {1, 3})
        assert op_types(conversion) == ["Cast", "Exp", "Transpose", "Mul", "Cast"]

    def test_kept_ops_keep_the_users_casts(self) -> None:
        conversion = converted(model_of(self.TEXT), {0, 1, 3, 4})
        assert conversion.casts == 0
        assert op_types(conversion) == ["Exp", "Cast", "Transpose", "Cast", "Mul"]

    def test_low_cast_with_kept_neighbours_still_rounds(self) -> None:
        source = model_of("""(float[4] x) => (float[4] y) {
            a = Exp (x)
            b = Cast <to = 1> (a)
            y = Neg (b)
        }""")
        conversion = converted(source, {0, 2})
        assert op_types(conversion) == ["Exp", "Cast", "Cast", "Neg"]

    def test_fp16_output_of_the_user_keeps_its_name(self) -> None:
        source = model_of("(float[4] x) => (float16[4] h) { a = Exp (x) h = Cast <to = 10> (a) }")
        conversion = converted(source)
        assert op_types(conversion) == ["Cast", "Exp", "Identity"]
        assert conversion.model.graph.outputs[0].name == "h"

    def test_other_precisions_are_left_alone(self) -> None:
        source = model_of("""(float16[4] a, double[4] d, float[4] x) => (float16[4] u, double[4] v,
            float[4] y) { u = Add (a, a)  v = Exp (d)  y = Exp (x) }""")
        conversion = converted(source)
        assert conversion.casts == 2
        assert (types(conversion)["u"], types(conversion)["v"]) == (FP16, ir.DataType.DOUBLE)

    def test_quantised_parts_are_left_alone(self) -> None:
        source = model_of("""(float[4] x) => (float[4] y) <float s = {0.1}, int8 z = {0}> {
            q = QuantizeLinear (x, s, z)
            y = DequantizeLinear (q, s, z)
        }""")
        assert not source.candidates
        assert converted(source).casts == 0


class TestControlFlow:
    def test_captured_value_is_cast_where_it_is_born(self) -> None:
        source = model_of("""(float[4] x, bool c) => (float[4] y) {
            a = Exp (x)
            y = If (c) <
                then_branch = t () => (float[4] p) { p = Neg (a) },
                else_branch = e () => (float[4] r) { r = Abs (a) }>
        }""")
        conversion = converted(source, {2, 3})
        assert inputs_of(conversion, 2) == inputs_of(conversion, 3) == ["a_fp32"]
        assert op_types(conversion) == ["Cast", "Exp", "Cast", "If"]

    def test_branches_agree_whatever_their_ops_do(self) -> None:
        source = model_of("""(float[4] x, bool c) => (float[4] y) {
            y = If (c) <
                then_branch = t () => (float[4] p) { p = Neg (x) },
                else_branch = e () => (float[4] r) { r = Abs (x) }>
        }""")
        conversion = converted(source, {2})
        outputs = [g.outputs[0] for g in conversion.model.graph.subgraphs()]
        assert [(v.name, v.dtype) for v in outputs] == [("p", FLOAT), ("r", FLOAT)]

    def test_bodies_keep_their_interface(self) -> None:
        source = model_of("""(float[2] h, float[3, 2] x) => (float[2] hn, float[3, 2] y) {
            hn, y = Scan <num_scan_inputs = 1, body = b (float[2] s, float[2] i)
                => (float[2] sn, float[2] o) { sn = Add (s, i)  o = Tanh (sn) }> (h, x)
        }""")
        conversion = converted(source)
        (body,) = conversion.model.graph.subgraphs()
        assert [v.dtype for v in (*body.inputs, *body.outputs)] == [FLOAT] * 4
        assert conversion.casts == 4  # s, i, sn and o; none around the Scan
        assert op_types(conversion) == ["Scan"]

    def test_void_cast_of_a_captured_value(self) -> None:
        source = model_of("""(float[4] x, bool c) => (float[4] y) {
            a = Exp (x)
            y = If (c) <
                then_branch = t () => (float[4] p) { p = Cast <to = 1> (a) },
                else_branch = e () => (float[4] r) { r = Abs (a) }>
        }""")
        conversion = converted(source)
        then = next(g for g in conversion.model.graph.subgraphs() if g.name == "t")
        assert [n.op_type for n in then] == ["Cast"]  # the body returns a value of its own
        assert then.outputs[0].name == "p"


class TestLimits:
    def test_sequences_stay_float32(self) -> None:
        source = model_of("""(float[4] x) => (float[4] y, seq(float[4]) s) {
            a = Exp (x)
            s = SequenceConstruct (a, x)
            y = Neg (a)
        }""")
        conversion = converted(source)
        assert inputs_of(conversion, 1) == ["a_fp32", "x"]

    def test_bits_are_not_values(self) -> None:
        source = model_of(
            "(float[4] x) => (int32[4] y) { a = Exp (x) y = BitCast <to = 6> (a) }", opset=26
        )
        assert source.candidates == {0}

    def test_op_beside_a_value_of_unknown_type_is_pinned(self) -> None:
        source = model_of("""(float[2, 2] x, float[2, 2] z) => (float[2, 2] y) {
            f = acme.Mystery (x, z)
            y = Add (f, x)
        }""")
        assert source.candidates == frozenset()
        assert "type of 'f' is not known" in source.ops[1].reason
        assert converted(source).casts == 0

    def test_output_of_a_contrib_op_has_the_type_its_schema_ties_it_to(self) -> None:
        source = model_of("""(float[2, 2] x, float[2, 2] z) => (float[2, 2] y) {
            f = com.microsoft.FusedMatMul (x, z)
            y = Add (f, x)
        }""")
        assert source.candidates == {0, 1}
        assert types(converted(source))["f"] == ir.DataType.FLOAT16

    def test_bf16(self) -> None:
        conversion = converted(model_of(CHAIN), precision=BF16)
        assert types(conversion)["a"] == ir.DataType.BFLOAT16
        assert conversion.casts == 2

    def test_bf16_before_opset_13(self) -> None:
        source = model_of(CHAIN, opset=12)
        with pytest.raises(EngineError, match="opset 13 or newer"):
            convert(source, PrecisionPlan.of([]), Numerics(precision=BF16))

    def test_op_without_bf16_variant_is_kept_and_told(self) -> None:
        source = model_of(
            '(float[4] x) => (float[4] y) { a = Exp (x) y = Einsum <equation = "i->i"> (a) }'
        )
        conversion = converted(source, precision=BF16)
        assert inputs_of(conversion, 1) == ["a_fp32"]
        assert conversion.warnings == (
            "kept in fp32, as Einsum has no bf16 variant at opset 17: ops 1",
        )

    def test_bf16_lifts_the_opset_where_an_op_needs_it(self) -> None:
        text = """(float[1, 1, 4] x) => (float[1, 1, 1] y) <float[1, 1, 1] w = {2}> {
            a = Conv (x, w)
            p, q = Split <axis = 2> (a)
            b = Add (p, q)
            y = ReduceMean <axes = [2]> (b)
        }"""
        proto = ir.to_proto(model_of(text).graph_model)
        source = load_model(proto, BF16)
        conversion = converted(source, precision=BF16)
        assert conversion.model.opset_imports[""] == 22
        assert conversion.warnings == ("opset 17 lifted to 22, where Conv got bf16",)
        assert conversion.casts == 2
        nodes = {node.op_type: node for node in conversion.model.graph}
        assert nodes["Split"].attributes["num_outputs"].as_int() == 2
        axes = nodes["ReduceMean"].inputs[1]
        assert axes.const_value.numpy().tolist() == [2]
        kept = converted(source, {0}, precision=BF16)
        assert kept.model.opset_imports[""] == 17

    def test_bf16_of_an_op_that_runtimes_expand(self) -> None:
        """The function body of Clip uses Where, which got bfloat16 three opsets later."""
        text = "(float[4] x, float m) => (float[4] y) { a = Exp (x)  y = Clip (a, m) }"
        source = load_model(ir.to_proto(model_of(text, opset=13).graph_model), BF16)
        conversion = converted(source, precision=BF16)
        assert conversion.model.opset_imports[""] == 16
        text = """(float[1, 1, 4, 4] x, float[1, 4] r, int64[1] i, float m)
            => (float[1, 1, 4, 4] y) {
            a = RoiAlign (x, r, i)
            y = Clip (x, m)
        }"""
        source = load_model(ir.to_proto(model_of(text, opset=13).graph_model), BF16)
        assert source.ops[1].reason == "its definition as a function has no bf16 variant"

    def test_bf16_stays_where_an_op_changed_its_meaning(self) -> None:
        text = """(float[1, 1, 4, 4] x, float[1, 4, 4, 2] g) => (float[1, 1, 4, 4] y)
            <float[1, 1, 1, 1] w = {2}> { a = GridSample (x, g)  y = Conv (a, w) }"""
        source = load_model(ir.to_proto(model_of(text).graph_model), BF16)
        assert not source.candidates
        assert source.ops[1].reason == "its schemas (opset 17 to 19) have no bf16 variant"

    def test_wrong_types_are_never_passed_over(self) -> None:
        source = model_of(CHAIN)
        conversion = converted(source)
        values(conversion)["b"].type = ir.TensorType(FLOAT)
        with pytest.raises(ModelError, match="types do not check"):
            check_types(conversion.model, source.graph_model)

    def test_wrong_types_inside_bodies(self) -> None:
        source = model_of("""(float[4] x, bool c) => (float[4] y) {
            y = If (c) <
                then_branch = t () => (float[4] p) { a = Neg (x) p = Exp (a) },
                else_branch = e () => (float[4] r) { r = Abs (x) }>
        }""")
        conversion = converted(source)
        values(conversion)["a"].type = ir.TensorType(FLOAT)
        with pytest.raises(ModelError, match="types do not check"):
            check_types(conversion.model, source.graph_model)

    def test_unknown_domain_is_pinned(self) -> None:
        source = model_of("""(float[4] x) => (float[4] y) {
            a = Exp (x)
            b = com.microsoft.NoSuchOp (a)
            y = Cast <to = 1> (b)
        }""")
        conversion = converted(source, {2})
        assert inputs_of(conversion, 1) == ["a_fp32"]
