with

interactions as (

    select * from {{ ref('stg_raw__interactions') }}

),

interactions_of_interval as (

    select * from interactions
    where
        occurred_at < {{ as_of() }}
        and domain in {{ domains() }}

),

-- An event that landed twice counts once. The copies agree on everything that makes the id; where they differ in the
-- rest, a file wins over the stream, then the latest partition.
interactions_deduplicated as (

    select distinct on (event_id) * from interactions_of_interval
    order by
        event_id,
        source = 'stream',
        landed_partition desc,
        source

)

select * from interactions_deduplicated
