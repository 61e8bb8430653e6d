-- The tool calls that the message m made, as rows with {item} and {number}: those of a chat message, its one
-- call of the old kind, or a call that is an item of the Responses API. An item has no role in its payload; it
-- gets the shape of a chat message's call, and what a built-in tool is to do stands in its action or operation.
{json_elements}(CASE
    WHEN {json_type_at(m.payload, tool_calls)} = 'array' THEN {json_at(m.payload, tool_calls)}
    WHEN {json_type_at(m.payload, function_call)} = 'object'
    THEN {json_array}({as_json}({json_at(m.payload, function_call)}))
    WHEN {text_at(m.payload, call_id)} IS NOT NULL AND {text_at(m.payload, role)} IS NULL AND m.kind = 'tool_call'
    THEN {json_array}({json_object}(
        'id', {as_json}({json_at(m.payload, call_id)}),
        'name', {as_json}(COALESCE({json_at(m.payload, name)}, {json_at(m.payload, type)})),
        'arguments', {as_json}(COALESCE({json_at(m.payload, arguments)}, {json_at(m.payload, input)},
            {json_at(m.payload, action)}, {json_at(m.payload, operation)}))))
    ELSE '[]' END) {as_listed}
