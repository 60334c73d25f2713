"""A method, its checkpoint, an image generator and a data set of a package of its own, importing nothing heavy."""

from fmri_models import DatasetRecord, GeneratorRecord, Method, Paper, PretrainedRecord

PAPER = Paper("On Shallow Layers", ("Ann Author", "Bo Writer"), 2026, "https://example.org/shallow", "A Journal")
CHECKPOINT = PretrainedRecord(
    name="shallow-stripes",
    title="Trained on one subject who saw stripes",
    method="shallow",
    generator="mosaic",
    paper=PAPER,
    license="apache-2.0",
    origin="https://huggingface.co/user/name",
    size=12_000,
    state="reference",
    repository="user/name",
    package="fmri_shallow",
)
METHOD = Method(
    name="shallow",
    title="Shallow: one hidden layer from voxels to latents",
    config="fmri_shallow.method:ShallowConfig",
    model="fmri_shallow.method:ShallowModel",
    output="fmri_models:FmriModelOutput",
    pipeline="fmri_shallow.method:ShallowPipeline",
    objective="fmri_shallow.method:ShallowObjective",
    quick=("stages.0.training.epochs=2",),
    paper=PAPER,
    pretrained=(CHECKPOINT,),
)
GENERATOR = GeneratorRecord(
    name="mosaic",
    title="Mosaic: a few cells of one colour each",
    generator="fmri_shallow.mosaic:MosaicImageGenerator",
    components=("fmri_shallow.mosaic:Palette",),
)
DATASET = DatasetRecord(
    name="stripes",
    title="Stripes: bright and dark bars, in a file of NumPy",
    prepare="fmri_shallow.stripes:prepare",
    license="cc0-1.0",
)
