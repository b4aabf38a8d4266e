-- Every different event in raw before as_of and in the build's domains is in the mart once, and nothing else is. In an
-- incremental build: of the users whose events it changed.
with

raw_events as (

    select distinct event_id from {{ ref('stg_raw__interactions') }}
    where
        occurred_at < {{ as_of() }}
        and domain in {{ domains() }}
        and {{ if_changed('user_id') }}

),

facts as (

    select * from {{ ref('fct_interactions') }}
    where {{ if_changed('user_id') }}

),

counts as (

    select
        (select count(*) from raw_events) as raw_count,
        (select count(*) from facts) as mart_count,
        (select count(*) from facts inner join raw_events using (event_id)) as common_count

)

select * from counts
where
    raw_count != mart_count
    or raw_count != common_count
