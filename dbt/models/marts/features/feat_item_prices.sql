{#
    Built by recsys_insight, whole. A catalogue has one price an item and no history of it: what was paid, event by event,
    has one.
#}
{{ config(indexes=[{'columns': ['item_id', 'event_timestamp'], 'unique': true}]) }}

with

purchases as (

    select * from {{ ref('int_purchases_priced') }}
    where revenue is not null and quantity > 0

),

paid_per_day as (

    select
        item_id,
        {{ day_number('occurred_date') }} as paid_day,
        sum(quantity) as quantity,
        sum(revenue) as revenue

    from purchases
    group by item_id, occurred_date

),

-- A row is known from the midnight that ends its day.
running_totals as (

    select
        item_id,
        paid_day,
        revenue / quantity as price,
        sum(quantity) over so_far as quantity_total,
        sum(revenue) over so_far as revenue_total,
        sum(quantity) over last_90_days as quantity_90d,
        sum(revenue) over last_90_days as revenue_90d

    from paid_per_day
    window
        so_far as (partition by item_id order by paid_day),
        last_90_days as (
            partition by item_id
            order by paid_day
            range between 89 preceding and current row
        )

)

select
    item_id,
    {{ utc_midnight("date '1970-01-01' + paid_day + 1") }} as event_timestamp,
    round(price::numeric, 9)::double precision as item_price,
    round((price / nullif(revenue_total / quantity_total, 0))::numeric, 9)::double precision as item_price_to_mean,
    round((revenue_90d / quantity_90d)::numeric, 9)::double precision as item_mean_price_90d,
    quantity_total::double precision as item_sold_total

from running_totals
