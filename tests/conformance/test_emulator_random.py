"""Random models: the emulator's engine, with all its shortcuts, gives what one session gives."""

from __future__ import annotations

import onnx
import onnx_ir as ir
from conversion_runners import Runtime
from hypothesis import assume, given, note
from hypothesis import strategies as st
from random_models import examples, feeds_of, models, plans_of, runs

from topsideas.engines.emulator.agreement import equal
from topsideas.engines.emulator.engine import EmulatorEngine
from topsideas.graph.emulation import emulated
from topsideas.graph.loading import load_model
from topsideas.precision import Numerics, Overflow


@examples(20, 500)
@given(models(), st.data(), st.sampled_from(Overflow))
def test_random_models(proto: onnx.ModelProto, data: st.DataObject, overflow: Overflow) -> None:
    assume(runs(proto))
    note(onnx.printer.to_text(proto))
    numerics = Numerics(overflow=overflow)
    source = load_model(proto)
    engine, feeds = EmulatorEngine(source, numerics), feeds_of(source)
    slots = {op.id: op.slots for op in source.ops}
    for plan in data.draw(st.lists(plans_of(source), min_size=1, max_size=3)):
        whole = emulated(source.graph_model, plan.low(source.candidates), slots, numerics)
        expected = Runtime()(ir.to_proto(whole), feeds)
        executable = engine.compile(plan)
        trace = executable.trace(feeds)
        assert all(record.id >= 0 for record in trace)
        runnables = (executable, executable.freeze(), executable.once())
        for found in (trace.outputs, *(runnable.run(feeds) for runnable in runnables)):
            for output, value in zip(source.graph.outputs, expected, strict=True):
                assert equal(found[str(output.name)], value), output.name
        fused = engine.plans.open(executable.low, fused=True).run(feeds)
        for name, value in executable.second_opinion().run(feeds).items():
            assert equal(value, fused[name]), f"{name}, put together from segments"
