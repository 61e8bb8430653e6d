-- One row a tool call, with its result; a call id may occur again: each has its own result
CREATE VIEW {tool_calls} (
    conversation_id, position, number, call_id, name, arguments, result_position, result, unanswered
) AS
-- The n-th call with an id in a message is answered by the n-th result with that id behind it, before the id is
-- called again. Calls of the old kind have no id: their function's name stands for it. Window functions, all by
-- conversation, and no GROUP BY: so both engines read the one conversation asked for.
WITH events AS (
    SELECT m.conversation_id, m.position, {number} AS number, {text_at({item}, id)} AS call_id,
        {text_at({item}, function.name, custom.name, name)} AS name,
        {text_at({item}, function.arguments, custom.input, arguments)} AS arguments,
        COALESCE({text_at({item}, id)}, {text_at({item}, function.name, custom.name, name)}, '') AS answer_key,
        NULL AS content
    FROM {messages} m, {calls_of_message}
    WHERE m.kind = 'tool_call'
    UNION ALL
    SELECT m.conversation_id, m.position, 0, NULL, NULL, NULL,
        {text_at(m.payload, tool_call_id, call_id, name)}, m.content
    FROM {messages} m
    WHERE m.kind = 'tool_result'
), placed AS (
    SELECT events.*, max(CASE WHEN number > 0 THEN position END) OVER (
        PARTITION BY conversation_id, answer_key ORDER BY position) AS called_at
    FROM events
), numbered AS (
    SELECT placed.*, row_number() OVER (
        PARTITION BY conversation_id, answer_key, called_at, number > 0 ORDER BY position, number) AS turn
    FROM placed
), paired AS (
    SELECT numbered.*, lead(position) OVER turns AS result_position, lead(content) OVER turns AS result
    FROM numbered
    WINDOW turns AS (PARTITION BY conversation_id, answer_key, called_at, turn ORDER BY position)
)
SELECT conversation_id, position, number, call_id, name, arguments, result_position, result,
    result_position IS NULL
FROM paired
WHERE number > 0
