"""Procedural frames from numpy and OpenCV: noise, light, scenes and the camera that looks at them."""
