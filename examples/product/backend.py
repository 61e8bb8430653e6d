"""The conversations of a product, without SQL of its own: `uvicorn examples.product.backend:app`."""

from contextlib import asynccontextmanager
from datetime import date

from fastapi import Body, Depends, FastAPI, Header
from fastapi.responses import JSONResponse, StreamingResponse

from tokenmem import AsyncStore, errors

everything = AsyncStore()  # TOKENMEM_URL, else sqlite:///tokenmem.db


@asynccontextmanager
async def lifespan(_):
    async with everything:
        await everything.upgrade()
        yield


def store_of(x_user: str = Header()):  # the header stands in for your login
    return everything.for_owner(x_user)


app, mine = FastAPI(lifespan=lifespan), Depends(store_of)
app.exception_handler(errors.ConversationNotFound)(lambda *_: JSONResponse({"detail": "no such chat"}, 404))
app.exception_handler(errors.InvalidArgument)(lambda _, error: JSONResponse({"detail": str(error)}, 422))


@app.get("/chats")
async def sidebar(store=mine, archived: bool = False, before: str | None = None):
    page = await store.conversations(order="recent", archived=archived, before=before, limit=50)
    return {"chats": page, "before": page[-1].cursor if len(page) == 50 else None}


@app.get("/chats/{chat_id}")
async def history(chat_id: str, store=mine, before: int | None = None):
    return await store.messages(chat_id, before=before, newest_first=True, payload=False)


@app.patch("/chats/{chat_id}")
async def rename_or_archive(chat_id: str, store=mine, title: str = Body(None), archived: bool = Body(None)):
    if archived is not None:
        await (store.archive(chat_id) if archived else store.restore(chat_id))
    return await (store.update(chat_id, title=title) if title else store.conversation(chat_id))


@app.delete("/chats/{chat_id}", status_code=204)
async def delete(chat_id: str, store=mine):
    await store.delete(chat_id)


@app.get("/usage")
async def usage(since: date, store=mine):
    return await store.usage(since=since, by="day")


@app.get("/export")
async def export(store=mine):
    return StreamingResponse(store.export(), media_type="application/jsonl")
