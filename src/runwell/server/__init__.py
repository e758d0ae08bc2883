"""HTTP in and out: what the engine does, as requests and answers. No rules of its own.

- `http`: bodies in, answers out; `validation` turns what pydantic found into a sentence
- `auth`: who asks; `polling`: requests that wait; `backend`: what every route needs
- `operations`: an operation of the API with all that its documentation says
- `routes/`: one file per family of URLs; `application` puts them together
- `event_log`, `listening`, `local_file`, `postgres_guard`: parts that `app.py` puts together
"""
