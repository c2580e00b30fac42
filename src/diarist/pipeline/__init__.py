"""The steps from a recording to a transcript, which the service, its workers and the command line share."""
