"""Bad input of every kind, as a person types it: one sentence with what, where and the mend, exit 2, nothing written
or lost. A command that hangs is killed and fails."""

import shlex
from pathlib import Path

import bad_input
import pytest
from bad_input import check_refused, contents
from typed import fresh, here


@pytest.fixture(scope="module")
def place(tmp_path_factory) -> Path:
    """A folder with everything that can be wrong; nothing in it ever changes."""
    root = tmp_path_factory.mktemp("place")
    bad_input.make_folders(root)
    bad_input.make_archives(root)
    bad_input.make_arrays(root)
    bad_input.make_tables(root)
    bad_input.make_checkpoints(root)
    bad_input.make_models(root)
    bad_input.make_runs(root)
    return root


# What is typed, and pieces of what is said: the thing and the mend.
DATA = [
    ("audit nowhere", "no such file or folder: nowhere", "check the path"),
    ("audit god", "did you mean good", "check the path"),
    ("audit empty", "no pictures in empty", "expected CLASS/picture.jpg"),
    ("audit flat", "flat holds pictures but no class folders", "put each picture into a folder"),
    ("audit one", "one class ('cat')", "give the folder that holds the class folders"),
    ("audit single", "class 'dog' has 1 distinct picture", "add pictures, remove the class"),
    ("audit unreadable", "none of the 16 pictures in unreadable", "cat/0.png is not a picture", "convert or remove it"),
    ("audit copies", "4 of 'a'", "left out: conflicting labels"),
    ("audit some --strict", "cat/torn.png", "dog/none.png", "replace or remove"),
    ("audit huge --strict", "cat/huge.png", "has more pixels than the limit", "store it smaller"),
    ("audit zero.zip", "zero.zip is empty (0 bytes)", "fetch it again"),
    ("audit zero.csv", "zero.csv", "the first line must be image_path,label"),
    ("audit zero.npz", "zero.npz is not a whole zip archive", "fetch or pack it again"),
    ("audit cut.zip", "cut.zip", "fetch it again"),
    ("audit outside.zip", "outside.zip holds a member that leads outside of it (../../evil.png)", "refused as a whole"),
    ("audit outside.tar", "outside.tar holds a member that leads outside of it (../evil.png)", "refused as a whole"),
    ("audit bomb.zip", "bomb.zip", "decompression bomb", "unpack it into a folder"),
    ("audit bomb.tar.gz", "bomb.tar.gz", "decompression bomb", "unpack it into a folder"),
    ("audit 'shard-{000..002}.tar'", "1 of the 3 shards", "are not there (shard-002.tar)", "fetch them or name those"),
    ("audit 'shards-*.tar'", "no file matches shards-*.tar", "check the path"),
    ("audit 'shard-*.tar'", "partly numbers and partly names (cat)", "use one of the two"),
    ("audit 'bare-*.tar'", "no picture in bare-*.tar has a label beside it", "expected KEY.jpg with KEY.cls"),
    ("audit '*.tar.gz'", "bomb.tar.gz", "decompression bomb", "unpack it into a folder"),
    ("audit '{cut,outside}.zip'", "cut.zip is not a tar file", "tar shards only"),
    ("audit https://host/x.tar", "https://host/x.tar is not on this machine", "fetch it"),
    ("audit objects.npz", "objects.npz", "without Python objects"),
    ("audit floats.npz", "'images' in floats.npz is float64", "it must be uint8"),
    ("audit channels.npz", "'images' in channels.npz", "[8, 8, 8, 2]; it must be uint8"),
    ("audit longer.npz", "'labels' in longer.npz has the shape [16]", "it must be [8]"),
    ("audit nan.npz", "'labels' in nan.npz is float64", "whole numbers or strings"),
    ("audit unnamed.npz", "'labels' in unnamed.npz has an empty name", "name every class"),
    ("audit lying.npz", "lying.npz cannot be read (", "write it again with numpy.savez"),
    ("audit nested.npz", "nested.npz cannot be read (", "write it again with numpy.savez"),
    ("audit missing.csv", "names 2 files that are not there (good/cat/gone.png, /nowhere/x.png)", "remove their lines"),
    ("audit header.csv", "header.csv has no column 'image_path' and 'label'", "the first line must be"),
    ("audit twice.csv", "twice.csv has the column label more than once", "keep one"),
    ("audit quote.csv", "quote.csv cannot be read as CSV", "save it again as UTF-8"),
    ("audit short.csv", "line 2 of short.csv", "mend the line"),
    ("audit split.csv", "split in line 2 of split.csv is 'trian'", "it must be train, val or test"),
    ("audit none.csv", "none.csv has a header but no rows", "add a line per picture"),
    ("audit utf16.csv", "utf16.csv", "the first line must be image_path,label"),
    ("audit /dev/zero", "/dev/zero is neither a file nor a folder", "give a folder"),
    ("audit pipe.pth", "pipe.pth is neither a file nor a folder", "give a folder"),
]
FIT_AND_TRAIN = [
    (tail, *said)
    for tail, *said in DATA
    if tail in {"audit nowhere", "audit empty", "audit one", "audit single", "audit outside.zip", "audit missing.csv"}
]
RUNS = [
    ("fit good --budget latency=5", "latency '5' has no unit", "add us, ms or s"),
    ("fit good --budget latncy=5ms", "unknown key 'latncy'", "did you mean 'latency'?"),
    ("fit good --budget latency=", "'latency=' is not KEY=VALUE", "write it like latency=5ms"),
    ("fit good --budget ''", "the argument after '--budget' is empty", "leave it out"),
    (f"fit good --budget size={10**400}B", "beyond anything", "give a smaller one or leave it out"),
    ("fit good --time 0s", "time '0s' must be above zero"),
    ("fit good --time soon", "time 'soon' is not a duration", "write it like 90s"),
    ("fit good --time 99999999999999999999d", "beyond anything", "give a smaller one"),
    ("fit good --time 400d", "more than a year", "give 365d at most"),
    ("fit good --time 2s", "too short", "give at least"),
    ("fit good --seed -1", "--seed is -1;", "at least 0"),
    ("fit good --sed 1", "there is no flag '--sed'", "did you mean '--seed'"),
    ("train good --epochs 1 --model resnet19", "no model is called 'resnet19'", "did you mean resnet18"),
    ("train good --model resnet18 --time 5", "time '5' has no unit", "add s, m, h or d"),
    ("train good --model resnet18", "how long to train is not said", "give --time"),
    ("train good --model resnet18 --epochs 0", "--epochs is 0;", "above 0"),
    ("train good --model resnet18 --epochs 1 --lr nan", "--lr is nan;", "finite"),
    ("train good --model resnet18 --epochs 1 --img-size 100000", "--img-size is 100000;", "at most 4096"),
    ("train good --model resnet18 --epochs 1 --workers 100000", "--workers is 100000;", "at most 1024"),
    ("train good --model resnet18 --epochs 1 --threads 1000000", "--threads is 1000000;", "at most 1024"),
    ("train good --model resnet18 --epochs 1 --rotate 181", "--rotate is 181;", "at least 0 and at most 180"),
    ("train good --model resnet18 --epochs 1 --auto-augment best", "--auto-augment", "randaugment"),
    ("train good --model resnet18 --epochs 1 --ra-ops 0", "--ra-ops is 0;", "at least 1 and at most 16"),
    ("train good --model resnet18 --epochs 1 --ra-magnitude 31", "--ra-magnitude is 31;", "at most 30"),
    (
        "train good --model resnet18 --epochs 1 --color-jitter 0.4 0.4 0.4 0.6",
        "--color-jitter is 0.4 0.4 0.4 0.6;",
        "0.5",
    ),
    ("train good --model resnet18 --epochs 1 --random-erase 1.5", "--random-erase is 1.5;", "at least 0 and at most 1"),
    ("train good --model resnet18 --epochs 1 --mixup nan", "--mixup is nan;", "finite"),
    ("train good --model resnet18 --epochs 1 --cutmix -1", "--cutmix is -1;", "at least 0"),
    ("train good --model resnet18 --epochs 1 --class-balance always", "--class-balance", "sampling"),
    ("train nowhere --model resnet18 --epochs 1 --smoothing 1", "--smoothing is 1;", "below 1"),
    ("train nowhere --model resnet18 --epochs 1 --time 10m", "give --epochs or --time and not both"),
    ("train nowhere --epochs 1 -c typed.yaml", "typed.yaml: model is 5;", "string"),
    ("train good --model resnet18 --epochs 1 -c nowhere.yaml", "there is no recipe nowhere.yaml", "give the path"),
    ("train good --model resnet18 --epochs 1 -c config.yaml", "config.yaml is nested too deeply", "key: value"),
]
OUTPUTS = [
    ("fit good -o begun", "begun", "name another folder with -o"),
    ("fit good -o mine", "mine is not a run of netsmith but holds 'thesis.txt'", "name an empty folder with -o"),
    ("fit good -o torn", "torn/run.json is damaged", "another folder"),
    ("fit good -o good", "-o good lies in the folder of the pictures", "name a folder outside of it"),
    ("fit good -o good/cat/run", "-o good/cat/run lies in the folder of the pictures", "name a folder outside of it"),
    ("fit good --time 10m -o file", "file is a file", "name a folder with -o"),
    ("fit good --time 10m -o file/run", "file/run cannot be made", "name another one with -o"),
    ("fit good --time 10m -o /proc/run", "/proc/run cannot be made", "name another one with -o"),
    ("fit good -o ''", "the argument after '-o' is empty"),
    ("train good --model resnet18 --epochs 1 -o done", "a finished run of `netsmith train other`; name another folder"),
    ("train good --model resnet18 --epochs 1 -o begun", "an interrupted run", "go on with --resume or name another"),
    ("train good --model resnet18 --epochs 1 -o good/run", "lies in the folder of the pictures", "outside of it"),
    ("train good --model resnet8_cifar --find-lr -o file", "file is a file", "name a folder with -o"),
    ("export model -o mine --overwrite", "mine is not an artifact", "choose another folder"),
    ("export model -o file", "file already exists", "name another with -o"),
    ("import-weights other.safetensors --model resnet18 -o mine", "mine already exists", "name another with -o"),
]
MODELS = [
    *((f"{verb} nowhere", "there is no nowhere", "give the folder") for verb in ("val", "verify", "bench")),
    ("predict nowhere good/cat/0.png", "there is no nowhere", "give the folder"),
    ("predict model-cut good/cat/0.png", "model-cut/model.onnx is refused", "export the artifact again"),
    ("predict model-described good/cat/0.png", "model-described/config.json", "export the artifact again"),
    ("predict model-deep good/cat/0.png", "model-deep/config.json", "export the artifact again"),
    ("predict model nowhere.png", "none of the 1 pictures could be read", "name at least one that can"),
    ("predict model empty", "empty holds no pictures", "name a folder with some"),
    ("predict model odd/cat/pipe.png odd/dog/endless.png", "none of the 2 pictures could be read"),
    ("predict model good --threads 1000000", "threads is 1000000", "give a number from 1 to 1024"),
    ("predict model good -b 0", "batch_size 0", "give at least 1"),
    ("predict model good --runtime evil", "there is no runtime 'evil'", "choose from onnxruntime"),
    ("val model --data nowhere", "no such file or folder: nowhere", "check the path"),
    ("val model --data good", "classes that the model does not know (cat, dog)", "it knows"),
    ("bench model-cut", "model-cut/model.onnx is refused", "export the artifact again"),
    ("bench model --seconds inf", "--seconds is inf", "give a time above 0"),
    ("bench good", "good is neither an artifact", "nor a run"),
    ("verify good", "good is neither an artifact", "nor a run"),
    ("verify model --seconds nan", "--seconds is nan", "give a time above 0"),
    ("profile resnet19", "no model is called 'resnet19'", "did you mean resnet18"),
    ("profile ./model-cut/nowhere", "there is no", "give the folder"),
    ("profile model --threads 0", "--threads is 0", "give at least 1"),
    ("models resnt18", "no model matches 'resnt18'", "did you mean 'resnet18'"),
    ("export model-cut -o out", "model-cut/model.onnx is not the file that config.json describes", "again"),
    ("export runs/nowhere -o out", "there is no", "give the folder"),
    ("import-weights cut.pth --model resnt18 -o out", "no model is called 'resnt18'", "did you mean resnet18"),
]
UNLIKE = ("model-unlike", "does not hold the weights of resnet20_cifar", "conv1.weight")
STAGES = [
    ("prune model-int8 --data good --macs 0.5", "model-int8 is int8 already", "prune the float32 model that it was"),
    ("prune model-unlike --data good --macs 0.5", *UNLIKE),
    ("prune model-unlike --data good --unstructured 0.5", *UNLIKE),
    ("train good --from model-unlike --epochs 1", *UNLIKE),
    ("train good --from model-int8 --epochs 1", "model-int8 was shipped without model.safetensors", "load the folder"),
    ("distill resnet8_cifar --teacher model-unlike --data good --epochs 1", *UNLIKE),
    ("distill model-unlike --teacher model-int8 --data good --epochs 1", *UNLIKE),
    ("distill resnet8_cifar --teacher model-int8 --data good --epochs 1", "shipped without model.safetensors"),
    ("distill resnet8_cifar --teacher model --data good --epochs 1", "does not know the classes cat, dog", "name a"),
    ("quantize model-unlike --data good", *UNLIKE[:2]),
    ("compress model-unlike --data good --budget size=1MB", *UNLIKE[:2]),
    ("compress model-int8 --data good --budget size=1MB", "model-int8 is int8 already"),
]
REPORTS = [
    ("report nowhere", "nowhere is not a run folder: it has no run.json"),
    ("report good", "good is not a run folder: it has no run.json"),
    ("report model", "model is not a run folder: it has no run.json"),
    ("report file", "file is not a run folder: it has no run.json"),
    ("report torn", "torn/run.json is damaged"),
    ("report begun -o mine/thesis.txt", "mine/thesis.txt exists and is no report of netsmith", "another file with -o"),
    ("report begun -o mine", "mine exists and is no report of netsmith", "name another file with -o"),
    ("report begun -o file/page.html", "file/page.html cannot be written", "name another file with -o"),
    ("report begun -o /proc/page.html", "/proc/page.html cannot be written", "name another file with -o"),
    ("report begun -o ''", "the argument after '-o' is empty"),
    ("report begun --overwrite", "there is no flag '--overwrite'", "choose from --output"),
]
CHECKPOINTS = [
    ("other.safetensors", "other.safetensors", "resnet18", "missing"),
    ("code.pth", "system", "could run code", "save the network's state_dict alone"),
    ("cut.pth", "cut.pth is no checkpoint", "nothing in it was run", "fetch it again"),
    ("cut.safetensors", "cut.safetensors is not a safetensors file or is cut short", "download it again"),
    ("lying.safetensors", "lying.safetensors is not a safetensors file or is cut short", "download it again"),
    ("code.pkl", "code.pkl is no checkpoint", "nothing in it was run", "fetch it again"),
    ("pipe.pth", "pipe.pth is not there", "give a checkpoint file"),
    ("nowhere.pth", "nowhere.pth is not there", "give a checkpoint file"),
]


@pytest.fixture(scope="module")
def untouched(place) -> dict[str, str]:
    """What is in the folder."""
    return contents(place)


@pytest.fixture
def refused(place, untouched):
    """Tries what is typed, in this process or a fresh one."""

    def tried(typed: str, *said: str, run=here) -> None:
        check_refused(run(*shlex.split(typed), cwd=place), *said)
        assert contents(place) == untouched, "nothing is written or lost"

    return tried


def named(rows):
    """Parameters with readable names."""
    return [pytest.param(typed, said, id=typed[:60]) for typed, *said in rows]


@pytest.mark.parametrize(("typed", "said"), named([DATA[0], OUTPUTS[0], OUTPUTS[9], MODELS[3], REPORTS[0]]))
def test_in_a_process_of_its_own(refused, typed, said):
    refused(typed, *said, run=fresh)


@pytest.mark.parametrize(("typed", "said"), named(DATA))
def test_data(refused, typed, said):
    refused(typed, *said)


@pytest.mark.parametrize(("typed", "said"), named(FIT_AND_TRAIN))
def test_data_of_a_run(refused, typed, said):
    data = typed.removeprefix("audit ")
    refused(f"fit {data} -o out", *said)
    refused(f"train {data} --model resnet18 --epochs 1 -o out", *said)


@pytest.mark.parametrize(("typed", "said"), named(RUNS))
def test_what_a_run_is_asked(refused, typed, said):
    refused(f"{typed} -o out", *said)


@pytest.mark.parametrize(("typed", "said"), named(OUTPUTS))
def test_where_to(refused, typed, said):
    refused(typed, *said)


@pytest.mark.parametrize(("typed", "said"), named(MODELS))
def test_models_and_artifacts(refused, typed, said):
    refused(typed, *said)


@pytest.mark.parametrize(("typed", "said"), named(STAGES))
def test_models_that_cannot_be_worked_on(refused, typed, said):
    refused(f"{typed} -o out", *said)


@pytest.mark.parametrize(("typed", "said"), named(REPORTS))
def test_reports(refused, typed, said):
    refused(typed, *said)


@pytest.mark.parametrize(("file", "said"), named(CHECKPOINTS))
def test_checkpoints(refused, file, said):
    refused(f"import-weights {file} --model resnet18 -o out", *said)
