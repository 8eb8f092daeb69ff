"""The formats of annotations that are read, by name."""

from kzoo.recipes.data.formats.coco import has_coco, read_coco
from kzoo.recipes.data.formats.createml import has_createml, read_createml
from kzoo.recipes.data.formats.cvat import has_cvat, read_cvat
from kzoo.recipes.data.formats.labelme import has_labelme, read_labelme
from kzoo.recipes.data.formats.records import Format
from kzoo.recipes.data.formats.tables import has_boxes, read_boxes
from kzoo.recipes.data.formats.voc import has_voc, read_voc
from kzoo.recipes.data.formats.yolo import has_yolo, read_yolo

FORMATS = {
    "coco": Format("json with images, annotations and categories", has_coco, read_coco, True),
    "voc": Format("one xml per image", has_voc, read_voc),
    "yolo": Format("one txt per image, and a data.yaml or classes.txt", has_yolo, read_yolo, True),
    "csv": Format("the columns file,label,ymin,xmin,ymax,xmax", has_boxes, read_boxes),
    "cvat": Format("one xml of CVAT for images 1.1", has_cvat, read_cvat, True),
    "labelme": Format("one json of shapes per image", has_labelme, read_labelme, True),
    "createml": Format("one json list of images with coordinates", has_createml, read_createml),
}
