-- Every message that each model call sent, the pinned ones included, as it was then
CREATE VIEW {call_windows} (
    conversation_id, number, model, status, position, role, kind, content, token_count, pinned, called_at,
    version
) AS
-- Several ranges rather than one with OR: a call is not to read all that lies before its window.
SELECT l.conversation_id, l.number, l.model, l.status, m.position, COALESCE(v.role, m.role),
    COALESCE(v.kind, m.kind), CASE WHEN v.version IS NULL THEN m.content ELSE v.content END,
    COALESCE(v.token_count, m.token_count), m.pinned, l.created_at, v.version
FROM {llm_calls} l
JOIN {messages} m ON m.conversation_id = l.conversation_id
    AND m.position BETWEEN l.first_position AND l.last_position
LEFT JOIN {message_versions} v ON v.conversation_id = m.conversation_id AND v.position = m.position
    AND v.since_revision <= l.revision AND l.revision < v.replaced_at_revision
UNION ALL
-- Pinned messages by the call's own list, whether or not they are pinned now.
SELECT l.conversation_id, l.number, l.model, l.status, m.position, COALESCE(v.role, m.role),
    COALESCE(v.kind, m.kind), CASE WHEN v.version IS NULL THEN m.content ELSE v.content END,
    COALESCE(v.token_count, m.token_count), {true}, l.created_at, v.version
FROM {llm_calls} l
CROSS JOIN {json_numbers(l.pinned)}
JOIN {messages} m ON m.conversation_id = l.conversation_id AND m.position = {listed_number}
LEFT JOIN {message_versions} v ON v.conversation_id = m.conversation_id AND v.position = m.position
    AND v.since_revision <= l.revision AND l.revision < v.replaced_at_revision
UNION ALL
-- Where a call has no list, those that are pinned now.
SELECT l.conversation_id, l.number, l.model, l.status, m.position, COALESCE(v.role, m.role),
    COALESCE(v.kind, m.kind), CASE WHEN v.version IS NULL THEN m.content ELSE v.content END,
    COALESCE(v.token_count, m.token_count), m.pinned, l.created_at, v.version
FROM {llm_calls} l
JOIN {messages} m ON m.conversation_id = l.conversation_id AND m.pinned AND m.position < l.first_position
LEFT JOIN {message_versions} v ON v.conversation_id = m.conversation_id AND v.position = m.position
    AND v.since_revision <= l.revision AND l.revision < v.replaced_at_revision
WHERE l.pinned IS NULL
