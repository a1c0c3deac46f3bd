"""Entries of TensorBoard that torch's writer has no words for: hyperparameters and the layout.

HPARAMS shows one row for a folder, whose first entry counts: a run that goes on in its folder keeps
its row, with the settings it began with and the newest figures.
"""

import re
from collections.abc import Mapping, Sequence
from typing import Any

from google.protobuf import struct_pb2
from tensorboard.compat.proto.summary_pb2 import Summary
from tensorboard.compat.proto.tensor_pb2 import TensorProto
from tensorboard.plugins.custom_scalar import layout_pb2
from tensorboard.plugins.custom_scalar import metadata as custom_scalar
from tensorboard.plugins.hparams import api_pb2, metadata, plugin_data_pb2

from lightning_embed import figures

Flat = Mapping[str, bool | int | float | str]

# Settings whose columns come first.
FIRST = (
    "data.max_length",
    "data.tokens_per_batch",
    "model.d_model",
    "model.n_layers",
    "parameters",
)
# The columns of figures in HPARAMS, by their titles.
RESULTS = {
    "held-out loss": figures.HELD_OUT_LOSS,
    "held-out bits per byte": figures.HELD_OUT_BITS_PER_BYTE,
    "validation loss": figures.VALIDATION_LOSS,
    "tokens/s": figures.TOKENS_PER_SECOND,
    "minutes": figures.MINUTES,
}


def layout(names: Sequence[str] = ()) -> Summary:
    """The page of custom scalars, as `figures.pages` arranges it for these sources of a mixture."""
    categories = []
    for title, charts in figures.pages(names).items():
        its = [
            layout_pb2.Chart(
                title=name,
                # TensorBoard takes tags for regular expressions.
                multiline=layout_pb2.MultilineChartContent(tag=[f"^{re.escape(t)}$" for t in tags]),
            )
            for name, tags in charts.items()
        ]
        # All but the first are closed when the page opens.
        categories.append(
            layout_pb2.Category(title=title, chart=its, closed=title != next(iter(figures.PAGES)))
        )
    content = layout_pb2.Layout(category=categories).SerializeToString()
    found = Summary()
    found.value.add(
        tag=custom_scalar.CONFIG_SUMMARY_TAG,
        metadata=custom_scalar.create_summary_metadata(),
        tensor=TensorProto(dtype="DT_STRING", string_val=[content]),
    )
    return found


def session(settings: Flat) -> list[Summary]:
    """A row of HPARAMS: the columns there are, and this run's settings."""
    columns = api_pb2.Experiment(
        hparam_infos=[
            # TensorBoard shows five columns at first, those before others that are said to differ.
            api_pb2.HParamInfo(name=name, type=_type(value), differs=name in FIRST)
            for name, value in settings.items()
        ],
        metric_infos=[
            api_pb2.MetricInfo(name=api_pb2.MetricName(tag=tag), display_name=title)
            for title, tag in RESULTS.items()
        ],
    )
    start = plugin_data_pb2.SessionStartInfo()
    for name, value in settings.items():
        start.hparams[name].CopyFrom(_value(value))
    return [
        _entry(metadata.EXPERIMENT_TAG, experiment=columns),
        _entry(metadata.SESSION_START_INFO_TAG, session_start_info=start),
    ]


def session_end() -> Summary:
    """The run is over as it should be."""
    end = plugin_data_pb2.SessionEndInfo(status=api_pb2.STATUS_SUCCESS)
    return _entry(metadata.SESSION_END_INFO_TAG, session_end_info=end)


def flat(settings: Mapping[str, Any], prefix: str = "") -> dict[str, bool | int | float | str]:
    """Nested settings as one level, by dotted names; what is no number, switch or text becomes
    text, and what is not set "none"."""
    found: dict[str, bool | int | float | str] = {}
    for name, value in settings.items():
        if isinstance(value, Mapping):
            found |= flat(value, f"{prefix}{name}.")
        elif isinstance(value, bool | str | int | float):
            found[prefix + name] = value
        else:
            found[prefix + name] = "none" if value is None else str(value)
    return found


def _type(value: bool | int | float | str) -> Any:
    if isinstance(value, bool):
        return api_pb2.DATA_TYPE_BOOL
    return api_pb2.DATA_TYPE_STRING if isinstance(value, str) else api_pb2.DATA_TYPE_FLOAT64


def _value(value: bool | int | float | str) -> struct_pb2.Value:
    if isinstance(value, bool):
        return struct_pb2.Value(bool_value=value)
    if isinstance(value, str):
        return struct_pb2.Value(string_value=value)
    return struct_pb2.Value(number_value=value)


def _entry(tag: str, **content: Any) -> Summary:
    data = plugin_data_pb2.HParamsPluginData(version=metadata.PLUGIN_DATA_VERSION, **content)
    found = Summary()
    found.value.add(
        tag=tag,
        metadata=metadata.create_summary_metadata(data),
        tensor=metadata.NULL_TENSOR,
    )
    return found
