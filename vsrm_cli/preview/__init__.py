"""`vsrm preview`: some scenes of a video upscaled by every network, before the whole job."""
