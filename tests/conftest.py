"""Its place lets every test import `clips`, the drawing of videos, from this folder."""
