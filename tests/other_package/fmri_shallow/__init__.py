"""A method, an image generator and a data set of a package of its own: what is here imports nothing heavy."""

from fmri_models import DatasetRecord, GeneratorRecord, Method

METHOD = Method(
    name="shallow",
    title="Shallow: one hidden layer from voxels to latents",
    config="fmri_shallow.method:ShallowConfig",
    model="fmri_shallow.method:ShallowModel",
    output="fmri_models:FmriModelOutput",
    pipeline="fmri_shallow.method:ShallowPipeline",
    objective="fmri_shallow.method:ShallowObjective",
    quick=("stages.0.training.epochs=2",),
)
GENERATOR = GeneratorRecord(
    name="mosaic",
    title="Mosaic: a few cells of one colour each",
    generator="fmri_shallow.mosaic:MosaicImageGenerator",
    components=("fmri_shallow.mosaic:Palette",),
)
DATASET = DatasetRecord("stripes", "Stripes: bright and dark bars, in a file of NumPy", "fmri_shallow.stripes:prepare")
