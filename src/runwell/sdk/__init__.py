"""What user code imports: tasks, triggers, the context of a run, the logger, the configuration."""
