"""The method as the paper writes it: torch only, no Ray, no OpenRLHF, no vLLM."""
