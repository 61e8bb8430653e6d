"""A Django application with async views, on one AsyncStore that was used before the workers forked."""

import asyncio
import os
import secrets
import sys
from contextlib import ExitStack
from pkgutil import resolve_name

from django.conf import settings
from django.core.wsgi import get_wsgi_application
from django.http import HttpRequest, HttpResponse
from django.urls import path

from tests.support.stores import Unit
from tests.torture.support.ledger import exchange
from tests.torture.web_servers import PRELOADED
from tokenmem import AsyncStore

broken = ExitStack()
if patch := os.environ.get("TORTURE_PLANTED"):
    broken.enter_context(resolve_name(patch)())

settings.configure(
    ALLOWED_HOSTS=["*"],
    LOGGING_CONFIG=None,  # Python's own writes to stderr, Django's nowhere
    ROOT_URLCONF=__name__,
    SECRET_KEY=secrets.token_hex(),
)

store = AsyncStore(os.environ["TOKENMEM_URL"], counter=Unit())


async def alive(_: HttpRequest) -> HttpResponse:
    return HttpResponse("yes")


async def append(_: HttpRequest, conversation_id: str, key: str) -> HttpResponse:
    """Answers with the first position that was stored, and with the worker's process."""
    stored = await store.append(conversation_id, exchange(key), idempotency_key=key)
    window = await store.window(conversation_id, 200, start_on="message")
    if not all(f" {conversation_id}-" in str(message.content) for message in window.messages):
        raise AssertionError("a window holds messages of another conversation")
    return HttpResponse(f"{stored.first_position} {os.getpid()}")


def handler500(_: HttpRequest) -> HttpResponse:
    """Django calls it by this name."""
    error = sys.exception()
    return HttpResponse(f"{type(error).__name__}: {error}", status=500)


urlpatterns = [path("", alive), path("append/<conversation_id>/<key>", append)]
application = get_wsgi_application()

asyncio.run(store.append(PRELOADED, exchange(PRELOADED), idempotency_key=PRELOADED))
