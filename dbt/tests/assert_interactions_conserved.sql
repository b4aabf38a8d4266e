-- Every different event in raw before as_of and in the build's domains is in the mart once, and nothing else is.
with

raw_events as (

    select distinct event_id from {{ source('raw', 'interactions') }}
    where
        occurred_at < {{ as_of() }}
        and domain in {{ domains() }}

),

counts as (

    select
        (select count(*) from raw_events) as raw_count,
        (select count(*) from {{ ref('fct_interactions') }}) as mart_count

)

select * from counts
where raw_count != mart_count
