"""Settings: flag over environment over newsbert.toml over default, and what is refused."""

import dataclasses
from pathlib import Path
from typing import Any

import pytest

from newsbert.core import config, config_file
from newsbert.core.config import resolve
from newsbert.core.settings import (
    HostSettings,
    ImageSettings,
    RaySettings,
    ServeSettings,
    TrackingServerSettings,
    TrackingSettings,
    TrainSettings,
)
from newsbert.errors import UsageError
from tests.support.configuration import SECTIONS, get_refusal, write_config


@pytest.mark.parametrize("section", SECTIONS)
def test_defaults_hold_without_any_source(section: Any) -> None:
    assert resolve(section) == section()


def test_flag_over_environment_over_file_over_default(monkeypatch: pytest.MonkeyPatch) -> None:
    default = TrainSettings().epochs
    assert resolve(TrainSettings).epochs == default
    write_config("[train]\nepochs = 7\n")
    assert resolve(TrainSettings).epochs == 7
    monkeypatch.setenv("NEWSBERT_TRAIN_EPOCHS", "8.5")
    assert resolve(TrainSettings).epochs == 8.5
    assert resolve(TrainSettings, epochs=9).epochs == 9
    assert resolve(TrainSettings, epochs=None).epochs == 8.5


def test_newsbert_variable_over_mlflow_variable_over_file(monkeypatch: pytest.MonkeyPatch) -> None:
    write_config('tracking_uri = "http://file"\nexperiment = "from the file"\nregistry_uri = "http://registry"\n')
    assert resolve(TrackingSettings) == TrackingSettings("http://file", "http://registry", "from the file")
    monkeypatch.setenv("MLFLOW_TRACKING_URI", "http://mlflow")
    monkeypatch.setenv("MLFLOW_EXPERIMENT_NAME", "from mlflow")
    monkeypatch.setenv("MLFLOW_REGISTRY_URI", "http://mlflow-registry")
    assert resolve(TrackingSettings) == TrackingSettings("http://mlflow", "http://mlflow-registry", "from mlflow")
    monkeypatch.setenv("NEWSBERT_TRACKING_URI", "http://own")
    assert resolve(TrackingSettings).tracking_uri == "http://own"
    assert resolve(TrackingSettings, tracking_uri="http://flag").tracking_uri == "http://flag"


def test_an_empty_variable_counts_as_not_set(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("NEWSBERT_TRAIN_EPOCHS", "")
    monkeypatch.setenv("MLFLOW_TRACKING_URI", "")
    assert resolve(TrainSettings) == TrainSettings()
    assert resolve(TrackingSettings) == TrackingSettings()


@pytest.mark.parametrize(
    ("section", "table"), [(TrainSettings, "TRAIN"), (ServeSettings, "SERVE"), (ImageSettings, "IMAGE")]
)
def test_every_setting_has_a_variable(section: Any, table: str, monkeypatch: pytest.MonkeyPatch) -> None:
    expected: dict[str, Any] = {}
    for setting in dataclasses.fields(section):
        default: Any = setting.default
        value: Any = default + 1 if type(default) in {int, float} else not default if default is False else "7"
        value = min(value, setting.metadata["le"]) if setting.metadata["le"] and default is not None else value
        value = ("a b", "c") if isinstance(default, tuple) else value
        value = setting.metadata["choices"][-1] if setting.metadata["choices"] else value
        value = 0.5 if setting.name in {"learning_rate", "review_threshold"} else value
        numbers = {"max_train_samples", "epochs", "max_steps", "batch_size", "grpc_port", "metrics_port"}
        expected[setting.name] = 7 if default is None and setting.name in numbers else value
        monkeypatch.setenv(
            f"NEWSBERT_{table}_{setting.name.upper()}", ",".join(value) if isinstance(value, tuple) else str(value)
        )
    assert resolve(section) == section(**expected)


def test_an_environment_is_a_table_by_its_name(monkeypatch: pytest.MonkeyPatch) -> None:
    Path(config_file.CONFIG_FILE).write_text(
        "[environments.eu-west]\nport = 81\n[environments.dev]\n", encoding="utf-8"
    )
    monkeypatch.setenv("NEWSBERT_ENVIRONMENTS_EU_WEST_HOST", "10.0.0.7")
    assert config.environments() == {"eu-west": HostSettings(host="10.0.0.7", port=81), "dev": HostSettings()}


@pytest.mark.parametrize(
    ("section", "flag"),
    [
        (TrainSettings, {"epochs": 0}), (TrainSettings, {"epochs": float("nan")}), (TrainSettings, {"batch_size": 0}),
        (TrainSettings, {"seed": -1}), (TrainSettings, {"learning_rate": 2}), (ServeSettings, {"port": 65_536}),
        (ServeSettings, {"token_expiry_min": 0}), (ServeSettings, {"drain_s": -1}), (ServeSettings, {"grpc_port": 0}),
        (ServeSettings, {"workers": 0}), (ServeSettings, {"batch_delay_ms": -1}), (ServeSettings, {"timeout_s": 0}),
        (TrainSettings, {"review_target_accuracy": 1.1}), (TrainSettings, {"review_threshold": -0.1}),
        (ServeSettings, {"review_threshold": float("nan")}),
    ],
)  # fmt: skip
def test_a_number_out_of_range_is_refused_with_the_range(section: Any, flag: dict[str, Any]) -> None:
    with pytest.raises(UsageError) as caught:
        resolve(section, **flag)
    (name,) = flag
    option = name.replace("_", "-")
    assert caught.value.message.startswith(f"the option --{option}: ")
    assert "or more" in str(caught.value.hint) or "from" in str(caught.value.hint)


@pytest.mark.parametrize(
    ("section", "flag"),
    [
        (ServeSettings, {"workers": 1}), (ServeSettings, {"port": 0}), (ServeSettings, {"port": 65_535}),
        (ServeSettings, {"review_threshold": 1}), (TrainSettings, {"batch_size": 1}), (TrainSettings, {"seed": 0}),
        (TrackingServerSettings, {"workers": 1}), (TrackingServerSettings, {"port": 0}), (RaySettings, {"workers": 1}),
    ],
)  # fmt: skip
def test_the_bounds_of_a_range_are_accepted(section: Any, flag: dict[str, Any]) -> None:
    assert resolve(section, **flag) == section(**flag)


def test_an_invalid_choice_is_refused_with_the_choices() -> None:
    with pytest.raises(UsageError) as caught:
        resolve(ServeSettings, log_format="xml")
    assert "--log-format: 'xml'" in caught.value.message
    assert "text, json" in str(caught.value.hint)


def test_falsy_flags_override() -> None:
    write_config("[serve]\nport = 9000\n[train]\nseed = 5\n")
    assert resolve(ServeSettings, port=0).port == 0
    assert resolve(TrainSettings, seed=0).seed == 0


@pytest.mark.parametrize(
    ("value", "expected"),
    [("1", True), ("true", True), ("TRUE", True), (True, True), ("0", False), ("false", False), (False, False)],
)
def test_a_switch_is_on_or_off(value: Any, expected: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    assert resolve(ServeSettings, token_auth=value).token_auth is expected
    write_config(f"[serve]\ntoken_auth = {str(value).lower() if isinstance(value, bool) else repr(value)}\n")
    assert resolve(ServeSettings).token_auth is expected
    monkeypatch.setenv("NEWSBERT_TOKEN_AUTH", str(value))
    assert resolve(ServeSettings).token_auth is expected
    assert resolve(ServeSettings, token_auth=not expected).token_auth is not expected


@pytest.mark.parametrize("value", ["yes please", "2", "on", " ", 1, 0, 1.0, [], ["true"], {}])
def test_a_switch_that_is_neither_on_nor_off_is_refused(value: Any) -> None:
    # A user who wants tokens must not notice later that there were none.
    assert "neither yes nor no" in get_refusal(ServeSettings, token_auth=value)


@pytest.mark.parametrize("labels", ["World, Sci/Tech ,Sport & loisirs,", ["World", "Sci/Tech", "Sport & loisirs"]])
def test_a_list_is_read_from_text_or_a_list(labels: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    expected = ("World", "Sci/Tech", "Sport & loisirs")
    assert resolve(TrainSettings, labels=labels).labels == expected
    write_config(f"[train]\nlabels = {labels!r}\n")
    assert resolve(TrainSettings).labels == expected
    if isinstance(labels, str):
        monkeypatch.setenv("NEWSBERT_TRAIN_LABELS", labels)
        assert resolve(TrainSettings).labels == expected


@pytest.mark.parametrize(
    ("name", "value", "kind"),
    [
        ("seed", "many", "a whole number"),
        ("seed", "1.5", "a whole number"),
        ("max_train_samples", "all", "a whole number"),
        ("epochs", "three", "a number"),
        ("learning_rate", "1e-4x", "a number"),
    ],
)
def test_a_variable_of_the_wrong_type_is_named(
    name: str, value: str, kind: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    variable = f"NEWSBERT_TRAIN_{name.upper()}"
    monkeypatch.setenv(variable, value)
    message = get_refusal(TrainSettings)
    assert variable in message
    assert repr(value) in message
    assert kind in message


def test_a_flag_of_the_wrong_type_is_named() -> None:
    assert get_refusal(TrainSettings, learning_rate="fast") == "the option --learning-rate: 'fast' is not a number"
    assert "--labels" in get_refusal(TrainSettings, labels=7)


def test_the_model_name_has_the_same_precedence(monkeypatch: pytest.MonkeyPatch) -> None:
    assert config.model_name() is None
    write_config('model_name = "FromFile"\n')
    assert config.model_name() == "FromFile"
    assert resolve(TrackingSettings) == TrackingSettings()
    monkeypatch.setenv("NEWSBERT_MODEL_NAME", "FromEnvironment")
    assert config.model_name() == "FromEnvironment"
    assert config.model_name("FromFlag") == "FromFlag"


def test_help_shows_defaults_and_meanings() -> None:
    assert config.default_of(TrainSettings, "max_length") == str(TrainSettings().max_length)
    assert float(config.default_of(ServeSettings, "timeout_s")) == ServeSettings().timeout_s
    assert not config.default_of(ServeSettings, "timeout_s").endswith(".0")
    assert config.default_of(TrainSettings, "max_train_samples") == ""
    assert config.default_of(TrainSettings, "labels") == ""
    for section in SECTIONS:
        for setting in dataclasses.fields(section):
            assert config.help_of(section, setting.name)
