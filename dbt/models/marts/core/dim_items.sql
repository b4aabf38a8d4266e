{{ config(indexes=[{'columns': ['item_id'], 'unique': true}]) }}

with

months as (

    select * from {{ ref('int_items_monthly') }}

),

described_items as (

    select * from {{ ref('int_items_deduplicated') }}

),

active_items as (

    select
        item_id,
        min(domain) as domain,
        sum(interactions)::bigint as interaction_count

    from months
    group by item_id

),

-- An item that somebody used but no source describes keeps its place, so that every interaction finds its item; it
-- bears its id for a title and is not available to be recommended.
all_items as (

    select
        coalesce(described_items.item_id, active_items.item_id) as item_id,
        coalesce(described_items.domain, active_items.domain) as domain,
        coalesce(described_items.title, active_items.item_id) as title,
        described_items.text,
        coalesce(described_items.categories, '{}') as categories,
        coalesce(described_items.creators, '{}') as creators,
        described_items.price,
        described_items.published_year,
        coalesce(active_items.interaction_count, 0) as interaction_count,
        described_items.item_id is not null as is_available

    from described_items
    full join active_items using (item_id)

)

select * from all_items
