-- One row a model call: what it sent, what it cost, how it ended, or whether it still runs
CREATE VIEW {call_log} (
    conversation_id, number, model, status, first_position, last_position, window_tokens, input_tokens,
    cached_tokens, output_tokens, reasoning_tokens, reply_position, reply_messages, latency_ms, first_token_ms,
    finish_reason, error, request_id, created_at, instructions, tools, revision, api, token_limit, options,
    metadata, cache_write_tokens, pinned, changes
) AS
-- JSON is cast, so that both engines answer with its text.
SELECT l.conversation_id, l.number, l.model,
    CASE WHEN l.alive_at IS NULL THEN l.status WHEN l.alive_at > {seconds_ago(15)} THEN 'running'
        ELSE 'died' END,
    l.first_position, l.last_position, l.window_tokens, l.input_tokens, l.cached_tokens, l.output_tokens,
    l.reasoning_tokens, l.reply_position, l.reply_messages, l.latency_ms, l.first_token_ms, l.finish_reason,
    l.error, l.request_id, l.created_at, p.instructions, CAST(p.tools AS text), l.revision, l.api,
    l.token_limit, CAST(l.options AS text), CAST(l.metadata AS text), l.cache_write_tokens,
    CAST(l.pinned AS text), CAST(l.changes AS text)
FROM {llm_calls} l
LEFT JOIN {call_prompts} p ON p.conversation_id = l.conversation_id AND p.digest = l.prompt_digest
