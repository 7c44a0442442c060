"""What would be? A trace of requests, models, a fleet and policies enter; what the requests would have waited leaves.

Modelium's own policies are run by the controller's own code (its table of lives, its passes, the plan) against a virtual clock;
plain policies and bounds that know the future run beside it, by the same rules of loading.
"""
