-- Every message that each model call sent, the pinned ones included
CREATE VIEW {call_windows} (
    conversation_id, number, model, status, position, role, kind, content, token_count, pinned, called_at
) AS
-- Two ranges rather than one with OR: a call is not to read all that lies before its window.
SELECT l.conversation_id, l.number, l.model, l.status, m.position, m.role, m.kind, m.content, m.token_count,
    m.pinned, l.created_at
FROM {llm_calls} l
JOIN {messages} m ON m.conversation_id = l.conversation_id
    AND m.position BETWEEN l.first_position AND l.last_position
UNION ALL
SELECT l.conversation_id, l.number, l.model, l.status, m.position, m.role, m.kind, m.content, m.token_count,
    m.pinned, l.created_at
FROM {llm_calls} l
JOIN {messages} m ON m.conversation_id = l.conversation_id AND m.pinned AND m.position < l.first_position
