"""Words of the model card."""

from lightning_embed.pretrained.model_card import _counted, _data


def test_the_sources_of_a_mixture_are_named_with_their_shares() -> None:
    asked = {"source": "Mixed", "text": "--data.sources a: --data.files /home/x; b: standard"}
    plan = {"mix": {"a": 0.7, "b": 0.3}}
    assert "by real tokens asked for: a 70 %, b 30 %." in _data(
        {"data": {"asked": asked, "plan": plan}}, None
    )
    without = _data({"data": {"asked": asked, "plan": {}}}, None)
    assert "the texts a, b, each as much as there is" in without and "/home" not in without


def test_one_of_a_thing_has_no_plural() -> None:
    assert (_counted(1, "layer"), _counted(2, "head")) == ("1 layer", "2 heads")
