"""OpenCV where it is installed (the extra `fast`): it does Pillow's work at a fraction of the cost.

`OPENCV` is whether it is used. Versions before 5 round coordinates to 1/32 px: they are not.
"""

try:
    import cv2
except ImportError:
    cv2 = None  # type: ignore[assignment]

OPENCV = cv2 is not None and int(cv2.__version__.split(".")[0]) >= 5
