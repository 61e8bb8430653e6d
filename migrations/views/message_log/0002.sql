-- Every message as a person reads it, tool calls included
CREATE VIEW {message_log} (
    conversation_id, position, role, kind, text, token_count, running_total, pinned, created_at, owner, title,
    metadata
) AS
-- What was said, or the type of an item that says and calls nothing; then what else there is: a refusal, parts
-- without text (an image as [image_url]), tool calls. A reply that was cut off is marked as incomplete.
SELECT m.conversation_id, m.position, m.role, m.kind,
    CASE WHEN m.payload IS NULL THEN m.content ELSE COALESCE((
        SELECT CASE WHEN {json_at(m.payload, tokenmem_partial)} IS NOT NULL
            THEN COALESCE({join_lines(line, place, number)} || ' ', '') || '[incomplete]'
            ELSE {join_lines(line, place, number)} END
        FROM (
            SELECT 1 AS place, 1 AS number, CASE WHEN m.kind IN ('reasoning', 'other')
                THEN '[' || COALESCE({text_at(m.payload, type)}, m.kind) || ']'
                    || COALESCE(' ' || NULLIF(m.content, ''), '')
                ELSE NULLIF(m.content, '') END AS line
            UNION ALL
            SELECT 2, 1, {text_at(m.payload, refusal)}
            UNION ALL
            SELECT 3, {number}, COALESCE({text_at({item}, refusal)},
                {text_at({item}, name)} || '(' || COALESCE({text_at({item}, input)}, '') || ')',
                {text_at({item}, content)}, '[' || {text_at({item}, type)} || ']')
            FROM {json_elements}(CASE
                WHEN {json_type_at(m.payload, content)} = 'array' THEN {json_at(m.payload, content)}
                WHEN m.kind = 'tool_result' AND {json_type_at(m.payload, output)} = 'array'
                THEN {json_at(m.payload, output)}
                WHEN m.kind = 'tool_result' AND {json_type_at(m.payload, output)} = 'object'
                THEN {json_array}({as_json}({json_at(m.payload, output)}))
                ELSE '[]' END) {as_listed}
            WHERE {text_at({item}, text)} IS NULL
            UNION ALL
            SELECT 4, {number}, COALESCE({text_at({item}, function.name, custom.name, name)}, '?')
                || '(' || COALESCE({text_at({item}, function.arguments, custom.input, arguments)}, '') || ')'
            FROM {calls_of_message}
        ) AS lines WHERE line IS NOT NULL
    ), m.content) END,
    m.token_count, m.tokens_before + m.token_count, m.pinned, m.created_at, c.owner, c.title,
    CAST(m.metadata AS text)
FROM {messages} m JOIN {conversations} c ON c.id = m.conversation_id
