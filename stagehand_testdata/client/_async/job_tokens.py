"""The token that a CI gives each of its jobs: GitHub on request, GitLab in the environment."""

from __future__ import annotations

import os

import httpx

from .. import errors
from ..connection import Secret

#: What GitLab's `id_tokens` are called that are meant for us: TESTDATA_TOKEN, TESTDATA_TOKEN_2…
PREFIX = "TESTDATA_TOKEN"


async def find_job_tokens(audience: str) -> list[Secret]:
    """Every token that this job has for that audience; none where this is no such job.

    Raises ConnectionFailed where GitHub says that there is one and does not give it.
    """
    given = [Secret(os.environ[name]) for name in sorted(os.environ) if name.startswith(PREFIX)]
    url = os.environ.get("ACTIONS_ID_TOKEN_REQUEST_URL")
    if url:
        given.append(await _ask_github(url, Secret(os.environ["ACTIONS_ID_TOKEN_REQUEST_TOKEN"]), audience))
    return [each for each in given if each]


async def _ask_github(url: str, bearer: Secret, audience: str) -> Secret:
    try:
        async with httpx.AsyncClient(timeout=30) as http:
            answer = await http.get(
                httpx.URL(url).copy_merge_params({"audience": audience}),
                headers={"Authorization": f"bearer {bearer.reveal()}"},
            )
        return Secret(str(answer.raise_for_status().json()["value"]))
    except (httpx.HTTPError, httpx.InvalidURL, ValueError, KeyError, TypeError):
        raise errors.ConnectionFailed(
            "GitHub gave this job no token: does it have `permissions: id-token: write`?"
        ) from None
