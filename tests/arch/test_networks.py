"""The published networks: exact figures, and shapes worked out by hand."""

from dataclasses import replace

import pytest

from netsmith.arch import graph as g
from netsmith.arch.cost import cost
from netsmith.arch.layout import at_size, layout_graph
from netsmith.arch.names import MODELS, find_layout, find_spec, list_models
from netsmith.arch.published import PUBLISHED
from netsmith.errors import InputError

# name: parameters, input side, MACs of convolutions and linear layers, entries of the state dict.
# ImageNet networks: computed from torchvision 0.28, or timm 1.0 where it alone has them, on the meta device;
# the plain Inceptions are in neither; nor are those from resnet50_v1 on, which tests/arch/test_resnets.py works out.
IMAGENET = {
    "alexnet": (61_100_840, 224, 714_188_480, 16),
    "vgg11": (132_863_336, 224, 7_609_090_048, 22),
    "vgg11_bn": (132_868_840, 224, 7_609_090_048, 62),
    "vgg13": (133_047_848, 224, 11_308_466_176, 26),
    "vgg13_bn": (133_053_736, 224, 11_308_466_176, 76),
    "vgg16": (138_357_544, 224, 15_470_264_320, 32),
    "vgg16_bn": (138_365_992, 224, 15_470_264_320, 97),
    "vgg19": (143_667_240, 224, 19_632_062_464, 38),
    "vgg19_bn": (143_678_248, 224, 19_632_062_464, 118),
    "googlenet": (13_004_888, 224, 1_498_376_192, 364),
    "inception_naive": (9_669_000, 224, 1_363_292_160, 212),
    "inception_reduced": (2_355_272, 224, 378_638_336, 356),
    "inception_naive_k3": (6_412_680, 224, 929_771_520, 68),
    "inception_naive_k5": (16_832_904, 224, 2_317_037_568, 68),
    "inception_naive_k7": (32_463_240, 224, 4_397_936_640, 68),
    "inception_reduced_k3": (4_565_640, 224, 655_208_448, 116),
    "inception_reduced_k5": (11_119_240, 224, 1_477_292_032, 116),
    "inception_reduced_k7": (20_949_640, 224, 2_710_417_408, 116),
    "inception_v3": (27_161_264, 299, 5_713_216_096, 580),
    "inception_v4": (42_679_816, 299, 12_253_974_624, 896),
    "inception_resnet_v2": (55_843_464, 299, 13_155_794_016, 1306),
    "resnet18": (11_689_512, 224, 1_814_073_344, 122),
    "resnet34": (21_797_672, 224, 3_663_761_408, 218),
    "resnet50": (25_557_032, 224, 4_089_184_256, 320),
    "resnet101": (44_549_160, 224, 7_801_405_440, 626),
    "resnet152": (60_192_808, 224, 11_513_626_624, 932),
    "resnext50_32x4d": (25_028_904, 224, 4_230_479_872, 320),
    "resnext101_32x8d": (88_791_336, 224, 16_414_015_488, 626),
    "resnext101_64x4d": (83_455_272, 224, 15_460_270_080, 626),
    "wide_resnet50_2": (68_883_240, 224, 11_398_021_120, 320),
    "wide_resnet101_2": (126_886_696, 224, 22_753_050_624, 626),
    "resnet18d": (11_708_744, 224, 2_053_713_920, 134),
    "resnet34d": (21_816_904, 224, 3_903_401_984, 230),
    "resnet50d": (25_576_264, 224, 4_328_824_832, 332),
    "resnet101d": (44_568_392, 224, 8_041_046_016, 638),
    "seresnet50": (28_088_024, 224, 4_091_699_200, 384),
    "seresnext50_32x4d": (27_559_896, 224, 4_232_994_816, 384),
    "resnetv2_50": (25_549_352, 224, 4_089_184_256, 300),
    "resnetv2_101": (44_541_480, 224, 7_801_405_440, 606),
    "resnetv2_152": (60_185_128, 224, 11_513_626_624, 912),
    "squeezenet1_0": (1_248_424, 224, 818_924_576, 52),
    "squeezenet1_1": (1_235_496, 224, 349_151_936, 52),
    "mobilenet_v1": (4_231_976, 224, 568_740_352, 164),
    "mnasnet0_5": (2_218_512, 224, 104_455_968, 314),
    "mnasnet0_75": (3_170_208, 224, 215_493_104, 314),
    "mnasnet1_0": (4_383_312, 224, 314_415_872, 314),
    "mnasnet1_3": (6_282_256, 224, 526_362_432, 314),
    "mnasnet_100": (4_383_312, 224, 314_415_872, 314),
    "mobilenet_v2": (3_504_872, 224, 300_774_272, 314),
    "mobilenet_v3_small": (2_542_856, 224, 56_510_400, 244),
    "mobilenet_v3_large": (5_483_032, 224, 216_589_760, 312),
    "efficientnet_b0": (5_288_548, 224, 385_814_752, 360),
    "efficientnet_b1": (7_794_184, 240, 686_802_832, 508),
    "efficientnet_b2": (9_109_994, 288, 1_087_529_456, 508),
    "efficientnet_b3": (12_233_232, 300, 1_827_141_392, 574),
    "efficientnet_b4": (19_341_616, 380, 4_393_771_024, 706),
    "efficientnet_b5": (30_389_784, 456, 10_266_384_752, 854),
    "efficientnet_b6": (43_040_704, 528, 19_067_593_536, 986),
    "efficientnet_b7": (66_347_960, 600, 37_745_884_192, 1200),
    "efficientnet_b8": (87_413_142, 672, 62_597_461_568, 1332),
    "efficientnet_l2": (480_309_308, 800, 475_703_653_280, 1914),
    "efficientnet_lite0": (4_652_008, 224, 385_187_552, 296),
    "efficientnet_lite1": (5_416_680, 240, 600_185_232, 386),
    "efficientnet_lite2": (6_092_072, 260, 859_736_272, 386),
    "efficientnet_lite3": (8_197_096, 300, 1_607_554_544, 440),
    "efficientnet_lite4": (13_006_568, 380, 3_943_564_112, 548),
    "efficientnet_v2_s": (21_458_488, 384, 8_365_617_152, 782),
    "efficientnet_v2_m": (54_139_356, 480, 24_582_460_384, 1120),
    "efficientnet_v2_l": (118_515_272, 480, 56_079_699_008, 1548),
    "resnet50_v1": (25_557_032, 224, 3_857_973_248, 320),
    "resnet101_v1": (44_549_160, 224, 7_570_194_432, 626),
    "resnet152_v1": (60_192_808, 224, 11_282_415_616, 932),
    "resnet50_cardinal": (23_716_872, 224, 4_055_535_616, 314),
    "resnet34_shortcut_a": (21_623_848, 224, 3_644_493_824, 200),
    "resnet34_shortcut_b": (21_797_672, 224, 3_663_761_408, 218),
    "resnet34_shortcut_c": (22_716_840, 224, 3_830_747_136, 296),
    "plain18": (11_515_688, 224, 1_794_805_760, 104),
    "plain34": (21_623_848, 224, 3_644_493_824, 200),
}
IMAGENET |= {
    f"tf_{name.replace('_v2', 'v2')}": figures
    for name, figures in IMAGENET.items()
    if name.startswith("efficientnet_") and name != "efficientnet_b2"
}
IMAGENET["tf_efficientnet_b2"] = (9_109_994, 260, 993_561_872, 508)
# He et al. 2016, table 6, in millions; 20 and 56 exactly, counted in the published checkpoints.
CIFAR_MILLIONS = {20: "0.27", 32: "0.46", 44: "0.66", 56: "0.85", 110: "1.7", 1202: "19.4"}
CIFAR_EXACT = {20: 269_722, 56: 853_018}


def test_every_network_of_the_tables_has_its_figures_here():
    cifar = {f"resnet{depth}_cifar" for depth in (8, 14, *CIFAR_MILLIONS)}
    cifar |= {f"plain{depth}_cifar" for depth in (20, 32, 44, 56, 110)}
    cifar |= {f"preresnet{depth}_cifar" for depth in (20, 32, 44, 56, 110, 164, 1001)}
    cifar |= {f"wrn{size}_cifar" for size in ("16_4", "40_4", "28_10")}
    assert set(MODELS) == set(IMAGENET) | cifar | {"alexnet_2012"}
    assert all(spec.name == name for name, spec in MODELS.items())


@pytest.mark.parametrize("name", IMAGENET)
def test_figures_are_exactly_those_of_the_reference(name: str):
    params, side, macs, entries = IMAGENET[name]
    layout = find_layout(name)
    found = cost(layout)
    state = list(g.state(layout_graph(layout)))
    assert (found.params, layout.resolution, found.macs, len(state)) == (params, (side, side), macs, entries)
    assert len({entry for entry, _, _ in state}) == entries
    assert layout.num_classes == 1000


def test_alexnet_of_2012_counted_by_hand():
    """Weights of the paper's section 3.5: grouped layers see half of the channels; 60 million in all."""
    convs = ((96, 3, 11), (256, 48, 5), (384, 256, 3), (384, 192, 3), (256, 192, 3))
    linears = ((4096, 256 * 36), (4096, 4096), (1000, 4096))
    params = sum(out * into * side**2 + out for out, into, side in convs) + sum(
        out * into + out for out, into in linears
    )
    positions = (55**2, 27**2, 13**2, 13**2, 13**2)
    macs = sum(at * out * into * side**2 for at, (out, into, side) in zip(positions, convs, strict=True))
    found = cost(find_layout("alexnet_2012"))
    assert (found.params, found.macs) == (params, macs + sum(out * into for out, into in linears))
    assert sum(isinstance(op, g.LocalNorm) for op in layout_graph(find_layout("alexnet_2012")).ops) == 2


@pytest.mark.parametrize("depth", CIFAR_MILLIONS)
def test_cifar_networks_have_the_papers_size_and_depth(depth: int):
    layout = find_layout(f"resnet{depth}_cifar")
    params = cost(layout).params
    published = CIFAR_MILLIONS[depth]
    assert f"{params / 1e6:.{len(published.partition('.')[2])}f}" == published
    assert params == CIFAR_EXACT.get(depth, params)
    weighted = [op for op in layout_graph(layout).ops if isinstance(op, g.Conv | g.Linear)]
    assert len(weighted) == depth  # zero-padded shortcuts have no convolution
    assert layout.num_classes == 10


def test_cifar_tensors_are_those_of_the_published_checkpoint():
    """ResNet-20's checkpoint holds 97 tensors (it is older than batch norm's counters)."""
    shapes = {name: shape for name, shape, _ in g.state(layout_graph(find_layout("resnet20_cifar")))}
    counters = [name for name in shapes if name.endswith("num_batches_tracked")]
    assert len(shapes) - len(counters) == 97
    assert shapes["conv1.weight"] == (16, 3, 3, 3)
    assert shapes["layer3.0.conv1.weight"] == (64, 32, 3, 3)
    assert shapes["fc.weight"] == (10, 64)


def test_maps_have_the_papers_sizes():
    """He et al. 2016, table 1; Tan and Le 2019, table 1: the maps after each stage."""
    resnet = layout_graph(find_layout("resnet50"))
    assert [g.shapes(resnet)[op] for op in resnet.taps.values()] == [
        (256, 56, 56), (512, 28, 28), (1024, 14, 14), (2048, 7, 7),
    ]  # fmt: skip
    b0 = layout_graph(find_layout("efficientnet_b0"))
    assert [g.shapes(b0)[op] for op in b0.taps.values()] == [
        (16, 112, 112), (24, 56, 56), (40, 28, 28), (80, 14, 14), (112, 14, 14), (192, 7, 7), (320, 7, 7),
    ]  # fmt: skip
    cifar = layout_graph(find_layout("resnet20_cifar"))
    assert [g.shapes(cifar)[op] for op in cifar.taps.values()] == [(16, 32, 32), (32, 16, 16), (64, 8, 8)]


@pytest.mark.parametrize("name", ["resnet50", "resnext50_32x4d", "efficientnet_b0", "mobilenet_v2", "resnet20_cifar"])
def test_classes_and_channels_change_only_the_ends(name: str):
    published, changed = find_layout(name), find_layout(name, num_classes=7, in_channels=1)
    assert changed.num_classes == 7
    assert changed.input.channels == 1
    assert (changed.stem, changed.stages) == (published.stem, published.stages)
    before = {entry: shape for entry, shape, _ in g.state(layout_graph(published))}
    after = {entry: shape for entry, shape, _ in g.state(layout_graph(changed))}
    differing = {entry for entry in before if before[entry] != after[entry]}
    assert differing == {next(iter(before)), f"{changed.head.logits}.weight", f"{changed.head.logits}.bias"}


@pytest.mark.parametrize("sides", [(48,), (24, 40), (16, 24, 16)], ids=["1-D", "rectangle", "3-D"])
def test_dimensions_are_those_of_the_input(sides: tuple[int, ...]):
    layout = find_layout("resnet18")
    layout = replace(layout, input=replace(layout.input, size=sides))
    shapes = g.shapes(layout_graph(layout))
    assert len(shapes["conv1"]) == 1 + len(sides)
    assert dict(g.parameters(layout_graph(layout)))["conv1.weight"] == (64, 3, *(7 for _ in sides))


def test_another_resolution_keeps_the_parameters():
    layout = find_layout("efficientnet_b0")
    assert list(g.state(layout_graph(at_size(layout, 160)))) == list(g.state(layout_graph(layout)))


def test_names_of_scaled_networks():
    assert find_spec("resnet50@0.75").width == find_spec("resnet50@width=0.75").width == 0.75
    spec = find_spec("efficientnet_b3@width=0.5,depth=2")
    assert (spec.width, spec.depth, spec.name) == (0.6, 2.8, "efficientnet_b3@width=0.5,depth=2")
    assert find_spec("mobilenet_v2:phi=2").depth == pytest.approx(1.44)


@pytest.mark.parametrize(
    ("name", "says"),
    [
        ("resnet51", "did you mean resnet"),
        ("", "netsmith models"),
        ("qqqqqqqq", "netsmith models"),
        ("resnet50@height=2", "'height' is not width, depth or resolution"),
        ("resnet50@width=much", "'much' is not a number"),
        ("resnet50@", "'' is not a number"),
        ("resnet50@0", "above 0"),
        ("resnet50@nan", "above 0"),
        ("resnet50@1e999", "above 0"),
        ("resnet50:omega=1", "phi=NUMBER"),
        ("resnet50:phi=1e9", "phi is 1e+09"),
        ("resnet50:phi=nan", "phi is nan"),
        ("resnet51@0.5", "did you mean resnet"),
    ],
)
def test_bad_names_say_what_is_wrong(name: str, says: str):
    with pytest.raises(InputError, match=says.replace("+", r"\+")):
        find_spec(name)


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        ({"num_classes": 0}, "num_classes is 0"),
        ({"num_classes": 10**9}, "num_classes is 1000000000"),
        ({"in_channels": 0}, "0 channels"),
        ({"img_size": 3}, "below 4 pixels"),
        ({"img_size": -8}, "below 4 pixels"),
        ({"img_size": 10**6}, "1000000 x 1000000"),
    ],
)
def test_bad_ends_say_what_is_wrong(arguments: dict[str, int], says: str):
    with pytest.raises(InputError, match=says):
        find_layout("resnet18", **arguments)


def test_list_models_takes_a_pattern():
    assert list_models("resnext*") == ["resnext50_32x4d", "resnext101_32x8d", "resnext101_64x4d"]
    assert list_models("ResNet50") == []
    assert list_models() == list(MODELS)


def test_published_accuracies_belong_to_networks():
    assert set(PUBLISHED) <= set(MODELS)
    assert all(10 < top1 < 100 for entry in PUBLISHED.values() for top1 in entry.top1)
    assert all(PUBLISHED[name].dataset == ("CIFAR-10" if "cifar" in name else "ImageNet") for name in PUBLISHED)
