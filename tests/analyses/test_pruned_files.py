"""Is a pruned network kept and loaded with equal bits, and a file that does not fit refused?"""

import copy
import json
from pathlib import Path

import pytest
import torch

from analyses.compress.prune import decide, prune
from analyses.compress.saved import FORMAT, counts, load_pruned, resize, save_pruned
from analyses.compress.structure import follow
from analyses.models.checkpoint import write_tensors
from analyses.models.nnunet import PlainUNet
from mcaprobe.errors import InputError
from tests.analyses.pruning_hosts import HOSTS, ResidualUNet


@pytest.mark.parametrize("name", HOSTS)
def test_a_pruned_network_is_saved_and_loaded_with_equal_bits(name: str, tmp_path: Path) -> None:
    host = HOSTS[name]
    network, x = host.network(), host.example()
    structure = follow(network, x)
    prune(network, decide(structure, {structure.prunable()[0]: [1], structure.prunable()[-1]: [0]}, rule="any"), x)
    save_pruned(tmp_path / "pruned.safetensors", network)
    fresh = host.network(seed=7)
    load_pruned(tmp_path / "pruned.safetensors", fresh)
    assert counts(fresh) == counts(network) != counts(host.network())
    assert fresh.state_dict().keys() == network.state_dict().keys()
    assert all(torch.equal(value, network.state_dict()[key]) for key, value in fresh.state_dict().items())
    with torch.no_grad():
        assert torch.equal(fresh(x), network(x))


def test_a_file_that_does_not_fit_is_refused_and_leaves_the_network_as_it_was(tmp_path: Path) -> None:
    path, network = tmp_path / "pruned.safetensors", ResidualUNet()
    save_pruned(path, network)
    with pytest.raises(InputError, match=r"'classifier' is in the network only"):
        load_pruned(path, PlainUNet(2, 1, 2, (4, 6)))
    recorded = counts(network)
    recorded["one.conv"]["out_channels"] = 9
    before = counts(network)
    with pytest.raises(InputError, match=r"Expected 1 to 4 for out_channels of 'one.conv', got 9"):
        resize(network, recorded)
    assert counts(network) == before
    write_tensors(path, network.state_dict(), {"format": "another", "channels": json.dumps(before)})
    with pytest.raises(InputError, match="got another"):
        load_pruned(path, network)
    recorded = copy.deepcopy(before)
    recorded["one.conv"]["out_channels"] = 3
    write_tensors(path, network.state_dict(), {"format": FORMAT, "channels": json.dumps(recorded)})
    with pytest.raises(InputError, match=r"Expected one.conv.bias of shape \(3,\) in .*, got \(4,\)"):
        load_pruned(path, network)
