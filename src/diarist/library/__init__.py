"""The Python library: ``diarist.load``, ``diarist.transcribe`` and ``diarist.diarize``, and what they are made of.

``loading`` is the only place where models are fetched and an engine is loaded. The workers of the service call it in
their own processes. ``model`` runs it in a process that it starts (``engine_process``), so that the work can be stopped
at any time, and so that neither the threads nor the environment of the importing program are changed.
"""
