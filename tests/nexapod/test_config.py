"""Settings: who wins, where a value came from, and what a typing error reads like."""

from pathlib import Path

import pytest

from nexapod.config import SETTINGS, Config, load_config, write_config
from nexapod.home import Home, find_home
from nexapod.job_faults import DescriptorFaults


@pytest.fixture
def home(tmp_path: Path) -> Home:
    return find_home(str(tmp_path), {})


def test_flag_beats_environment_beats_file_beats_default(home: Home) -> None:
    home.config_file.write_text('slots = 2\nengine = "none"\nname = "a"\n')
    config = load_config(home, {"NEXAPOD_SLOTS": "3", "NEXAPOD_NAME": "b", "NEXAPOD_WORK": "off"}, {"slots": 4})
    assert (config.slots, config.name, config.engine, config.work) == (4, "b", "none", False)
    assert config.origins["slots"] == "flag"
    assert config.origins["name"] == "env NEXAPOD_NAME"
    assert config.origins["engine"] == str(home.config_file)
    assert config.origins["lease_ms"] == "default"


def test_the_table_and_the_config_have_the_same_keys() -> None:
    assert set(SETTINGS) == set(Config.__dataclass_fields__) - {"origins"}


def test_every_fault_is_told_with_the_nearest_key(home: Home) -> None:
    home.config_file.write_text('slotz = 2\nlisten = ["rubbish"]\nlease_ms = 1\n')
    with pytest.raises(DescriptorFaults) as caught:
        load_config(home, {"NEXAPOD_GOSSIP": "perhaps", "NEXAPOD_SETUP_SECONDS": "7"}, {"engine": "podman"})
    faults = {fault.path: fault for fault in caught.value.faults}
    assert faults.keys() == {"slotz", "listen[0]", "lease_ms", "gossip", "engine"}
    assert faults["slotz"].suggestion == "slots"


def test_a_file_that_is_no_toml_is_a_fault(home: Home) -> None:
    home.config_file.write_text("name = ")
    with pytest.raises(DescriptorFaults, match="cannot be read"):
        load_config(home, {})


def test_what_init_writes_reads_back(home: Home) -> None:
    write_config(home, name='the "lab" \\ 7', listen=("/ip4/127.0.0.1/tcp/0", "/dns4/x.example/tcp/4001"))
    config = load_config(home, {})
    assert config.name == 'the "lab" \\ 7'
    assert config.listen == ("/ip4/127.0.0.1/tcp/0", "/dns4/x.example/tcp/4001")
    assert config.slots == SETTINGS["slots"].default
    with pytest.raises(FileExistsError):
        write_config(home, name="", listen=("/ip4/127.0.0.1/tcp/0",))


def test_addresses_come_comma_separated_from_the_environment(home: Home) -> None:
    config = load_config(home, {"NEXAPOD_LISTEN": "/ip4/127.0.0.1/tcp/1, /ip4/127.0.0.2/tcp/2"})
    assert config.listen == ("/ip4/127.0.0.1/tcp/1", "/ip4/127.0.0.2/tcp/2")
