"""raypipe: abnormality detection and report generation for CT archives, on Ray and vLLM.

Research software. Not a medical device.
"""

__version__ = "0.1.0"
