"""The job of `vsrm preview`: some places of a video in every network, before the long wait."""
