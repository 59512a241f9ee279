"""The program that trained the demo checkpoint (`plugins/demo`): `python -m tools.demo_vlm.train OUT`."""
