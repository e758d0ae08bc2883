from runwell import define_config

config = define_config(dirs=["trigger"])
