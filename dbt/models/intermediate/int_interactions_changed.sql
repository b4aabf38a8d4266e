{#
    What an incremental build works on: events that came or went since the last complete one, with all that they touch.
    Empty in a full build, which works on everything.
#}
{{
    config(
        materialized='table',
        indexes=[{'columns': ['user_id']}, {'columns': ['item_id']}, {'columns': ['occurred_date']}],
        post_hook="analyze {{ this }}"
    )
}}

with

interactions as (

    select * from {{ ref('stg_raw__interactions') }}

),

removed as (

    select * from {{ source('raw', 'removed_interactions') }}

),

changed as (

    select
        event_id,
        user_id,
        item_id,
        domain,
        occurred_at

    from interactions
    where {% if should_full_refresh() %}false{% else %}landed_tx >= {{ watermark() }}{% endif %}

    union

    select
        event_id,
        user_id,
        item_id,
        domain,
        occurred_at

    from removed
    where {% if should_full_refresh() %}false{% else %}removed_tx >= {{ watermark() }}{% endif %}

)

select
    event_id,
    user_id,
    item_id,
    occurred_at,
    {{ utc_date('occurred_at') }} as occurred_date

from changed
where
    occurred_at < {{ as_of() }}
    and domain in {{ domains() }}
