"""From a recording to a transcript: the steps that the service, its workers and the command line share."""
