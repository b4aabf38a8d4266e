{{
    config(
        materialized='incremental',
        incremental_strategy='replace',
        on_schema_change='fail',
        incremental_predicates=["event_id in (select event_id from intermediate.int_interactions_changed)"],
        indexes=[
            {'columns': ['event_id'], 'unique': true},
            {'columns': ['user_id', 'occurred_at']},
            {'columns': ['occurred_date']},
        ]
    )
}}

with

interactions as (

    select * from {{ ref('stg_raw__interactions') }}

),

changed as not materialized (

    select * from {{ ref('int_interactions_changed') }}

),

-- The copies of an event agree on all that makes its id, so that user and item find them by the index.
interactions_of_interval as (

    select interactions.* from interactions
    {% if is_incremental() %}
        inner join changed using (user_id, item_id, occurred_at, event_id)
    {% endif %}
    where
        interactions.occurred_at < {{ as_of() }}
        and interactions.domain in {{ domains() }}

),

-- An event that landed twice counts once. Where copies differ in the rest, a file wins over the stream, then the latest
-- partition. Sorted by user and instant, so that the rows of a user lie together: an incremental build, and every test
-- of its rows, reads users.
interactions_deduplicated as (

    select distinct on (user_id, occurred_at, event_id) * from interactions_of_interval
    order by
        user_id asc,
        occurred_at asc,
        event_id asc,
        source = 'stream' asc,
        landed_partition desc,
        source asc

)

select
    event_id,
    user_id,
    item_id,
    domain,
    event_type,
    rating,
    occurred_at,
    {{ utc_date('occurred_at') }} as occurred_date,
    source

from interactions_deduplicated
