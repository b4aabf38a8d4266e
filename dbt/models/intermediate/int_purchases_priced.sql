with

interactions as (

    select * from {{ ref('fct_interactions') }}
    where event_type = 'purchase'

),

landed_purchases as (

    select * from {{ ref('stg_raw__interactions') }}
    where event_type = 'purchase'

),

items as (

    select * from {{ ref('dim_items') }}

),

-- The copy that fct_interactions keeps: a file wins over the stream, then the latest partition.
contexts as (

    select distinct on (event_id)
        event_id,
        case when context is json object then context::jsonb else '{}'::jsonb end as context

    from landed_purchases
    order by
        event_id asc,
        source = 'stream' asc,
        landed_partition desc,
        source asc

),

-- A number that is none, or is negative, is as good as missing.
stated as (

    select
        event_id,
        case when context ->> 'quantity' ~ '^\d{1,9}$' then (context ->> 'quantity')::double precision end as quantity,
        case when context ->> 'price' ~ '^\d{1,9}(\.\d+)?$' then (context ->> 'price')::double precision end as price,
        case
            when context ->> 'revenue' ~ '^\d{1,9}(\.\d+)?$' then (context ->> 'revenue')::double precision
        end as revenue

    from contexts

)

select
    interactions.event_id,
    interactions.user_id,
    interactions.item_id,
    interactions.domain,
    interactions.occurred_at,
    interactions.occurred_date,
    coalesce(stated.quantity, 1) as quantity,
    coalesce(stated.revenue, coalesce(stated.quantity, 1) * coalesce(stated.price, items.price)) as revenue

from interactions
left join stated using (event_id)
left join items using (item_id)
