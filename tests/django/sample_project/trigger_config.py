from runwell import Retries, Retry, define_config

config = define_config(
    dirs=["trigger"], retries=Retries(default=Retry(max_attempts=5, min_timeout=0.05))
)
