-- One row a conversation: how long it is and what its model calls cost
CREATE VIEW {conversation_overview} (
    id, owner, title, message_count, total_tokens, token_counter, calls, input_tokens, output_tokens,
    created_at, updated_at, archived_at, parent_id, forked_at, keep, metadata
) AS
SELECT c.id, c.owner, c.title, c.message_count, c.total_tokens, c.token_counter,
    (SELECT count(*) FROM {llm_calls} l WHERE l.conversation_id = c.id),
    (SELECT sum(l.input_tokens) FROM {llm_calls} l WHERE l.conversation_id = c.id),
    (SELECT sum(l.output_tokens) FROM {llm_calls} l WHERE l.conversation_id = c.id),
    c.created_at, c.updated_at, c.archived_at, c.parent_id, c.forked_at, c.keep, c.metadata
FROM {conversations} c
