"""Procedural frames from NumPy and OpenCV: noise, light, scenes and the camera."""
