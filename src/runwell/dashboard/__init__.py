"""The dashboard: pages drawn on the server over the same functions of the engine as the API.

- `site` puts it together: which URLs are pages, who may open them, what their errors look like.
- `places` reads from a URL which environment a page is about.
- `views` draws a template; `formats` are the words and shapes of values in it.
- `live` keeps an open page as the database is, by server-sent events.
- The other modules are the pages, one for each noun.
"""
